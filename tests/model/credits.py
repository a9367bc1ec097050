"""The right state of prepaid credit accounts after a history: a slow and simple model with lists. Imports nothing of
the product.

The rules, as in docs/credits.md:

1. Credits are added as grants with an end. Debits use the grant that ends first; grants without an end are used last.
2. A debit beyond the balance becomes debt. New credits repay it first, unless the account's policy keeps it.
3. At its end a grant is removed, as far as the rest of the balance covers the reservations.
4. A reservation is made if balance and allowed overdraft, minus debt and reservations, cover it. It holds its amount until
   it is settled, released, or expired.
5. A counted call is debited once, with its billed amount, for any number of its records; if it ended and was counted since
   its account is prepaid. It cannot be refused. It settles its reservation, also if it costs nothing.
6. A settlement without a record is matched with the first billed record of that call.
7. A service's debit is refused if the balance minus the reservations does not cover it.
8. A key moves credits once: a repeat with the same contents gets the first answer, other contents are refused.
"""

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.model import credit_history as h

CONFLICT = "MB001"
ZERO = Decimal(0)
#: What a book counts in `seen`: the things that histories must be about.
SEEN = (
    "a call costs more than was reserved",
    "a call is debited beyond the balance",
    "a call is older than its account",
    "a debit is refused",
    "a debit is refused for what is reserved",
    "a key comes again",
    "a key comes with other contents",
    "a reservation is asked for again",
    "a reservation is made",
    "a reservation is refused",
    "a reservation is refused for others",
    "a reservation is refused for what is owed",
    "a reservation is released",
    "a reservation uses the allowed overdraft",
    "a settlement stands for a record",
    "credits expire",
    "credits leave what is owed",
    "credits repay what is owed",
    "records come again",
    "what is reserved does not expire",
)


@dataclass
class Grant:
    ends: int | None
    left: Decimal


@dataclass
class Account:
    """One account. `since`: it pays for calls from then on."""

    since: int
    policy: str = h.REPAY
    owed: Decimal = ZERO
    grants: list[Grant] = field(default_factory=list)

    @property
    def balance(self) -> Decimal:
        return sum((grant.left for grant in self.grants), ZERO)

    def comes(self, amount: Decimal, ends: int | None) -> None:
        repaid = min(self.owed, amount) if self.policy == h.REPAY else ZERO
        self.owed -= repaid
        self.grants.append(Grant(ends, amount - repaid))

    def goes(self, amount: Decimal) -> None:
        for grant in sorted(self.grants, key=lambda grant: (grant.ends is None, grant.ends)):
            used = min(grant.left, amount)
            grant.left -= used
            amount -= used
        self.owed += amount

    def lapse(self, now: int, reserved: Decimal) -> Decimal:
        """Remove expired grants; returns the amount."""
        ended = sum((grant.left for grant in self.grants if grant.ends is not None and grant.ends <= now), ZERO)
        gone = max(min(ended, self.balance - reserved), ZERO)
        self.goes(gone)
        return gone


@dataclass
class Reservation:
    """`settled`, `released`: how it ended; `stands_for`: the number of the call whose record settled it."""

    account: str
    call: str
    amount: Decimal
    ends: int
    settled: bool = False
    released: bool = False
    stands_for: int | None = None


class Book:
    """All accounts. `seen` counts which features a history had; `trail` has the movements: account, type, amount."""

    def __init__(self) -> None:
        self.now = 0
        self.accounts: dict[str, Account] = {}
        self.reservations: list[Reservation] = []
        self.answers: dict[str, tuple[tuple[Any, ...], Any]] = {}
        self.first_counted: dict[int, tuple[int, h.Call]] = {}
        self.debited: set[int] = set()
        self.trail: list[tuple[str, str, Decimal]] = []
        self.seen = Counter(dict.fromkeys(SEEN, 0))

    def takes(self, step: h.Step) -> Any:
        """The answer that the product must give to a step."""
        self.now = step.at
        self._lapse()
        answer = getattr(self, f"_{type(step).__name__.lower()}")(step)
        self._lapse()
        return answer

    def state(self) -> dict[str, Any]:
        """By account: balance, debt, reserved amount, and unexpired grants with their end and the rest."""
        return {
            name: (
                account.balance,
                account.owed,
                self._held(name),
                sorted(
                    (grant.ends or 0, grant.left)
                    for grant in account.grants
                    if grant.left and (grant.ends is None or grant.ends > self.now)
                ),
            )
            for name, account in self.accounts.items()
        }

    def sums(self) -> dict[tuple[str, str], tuple[int, Decimal]]:
        """By account and type: the number of movements (not compared for expiries), and their sum."""
        found: dict[tuple[str, str], tuple[int, Decimal]] = {}
        for account, kind, amount in self.trail:
            count, total = found.get((account, kind), (0, ZERO))
            found[account, kind] = (count + (kind != "expiry"), total + amount)
        return found

    def _given(self, step: h.Given) -> Any:
        amount = Decimal(step.amount)

        def move() -> Decimal:
            mine = self._opened(step.account)
            if amount > 0:
                self.seen["credits repay what is owed"] += bool(mine.owed and mine.policy == h.REPAY)
                self.seen["credits leave what is owed"] += bool(mine.owed and mine.policy == h.KEEP)
                mine.comes(amount, step.ends)
            else:
                mine.goes(-amount)
            self.trail.append((step.account, step.kind, amount))
            return mine.balance

        return self._once(step.key, ("given", step.account, amount, step.kind, step.ends), move)

    def _debited(self, step: h.Debited) -> Any:
        if (mine := self.accounts.get(step.account)) is None:
            return "no credit account"
        amount = Decimal(step.amount)

        def move() -> Any:
            if amount > mine.balance - self._held(step.account):
                self.seen["a debit is refused"] += 1
                self.seen["a debit is refused for what is reserved"] += amount <= mine.balance
                return "insufficient credits"
            mine.goes(amount)
            self.trail.append((step.account, "debit", -amount))
            return mine.balance

        return self._once(step.key, ("debited", step.account, amount), move)

    def _reserved(self, step: h.Reserved) -> Any:
        amount, overdraft = Decimal(step.amount), Decimal(step.overdraft)
        there = self._latest(step.call, released=False)
        if step.account not in self.accounts and overdraft < amount:
            return False, ZERO
        if there is not None and not there.settled and there.ends <= self.now:
            there.released, there = True, None
        if there is not None and (there.settled or there.amount != amount):
            return CONFLICT
        mine = self._opened(step.account)
        free = mine.balance + max(overdraft - mine.owed, ZERO) - self._held(step.account)
        if there is not None:
            self.seen["a reservation is asked for again"] += 1
            return True, max(free, ZERO)
        if amount > free:
            self.seen["a reservation is refused"] += 1
            self.seen["a reservation is refused for others"] += amount <= mine.balance
            self.seen["a reservation is refused for what is owed"] += bool(mine.owed and amount <= overdraft)
            return False, max(free, ZERO)
        self.seen["a reservation is made"] += 1
        self.seen["a reservation uses the allowed overdraft"] += amount > mine.balance
        self.reservations.append(Reservation(step.account, step.call, amount, self.now + step.seconds))
        return True, free - amount

    def _givenback(self, step: h.GivenBack) -> bool:
        there = self._latest(step.call)
        if there is None or there.settled or there.released or there.ends <= self.now:
            return False
        there.released = True
        return True

    def _settled(self, step: h.Settled) -> Any:
        if (there := self._latest(step.call)) is None:
            return "no reservation"
        mine, amount = self.accounts[there.account], Decimal(step.amount)

        def move() -> Decimal:
            mine.goes(amount)
            self.trail.append((there.account, "debit", -amount))
            return mine.balance

        pays = amount > 0 and not there.settled and there.stands_for is None
        key = f"settle:{step.call}"
        known = pays or key in self.answers
        answer = self._once(key, ("settled", amount), move) if known else mine.balance
        if answer != CONFLICT and not there.released:
            there.settled = True
        return answer

    def _counted(self, step: h.Counted) -> int:
        for call in step.calls:
            self.first_counted.setdefault(call.number, (self.now, call))
        return sum(self._count(call) for call in step.calls)

    def _replayed(self, step: h.Replayed) -> int:
        self.seen["records come again"] += bool(self.debited)
        return sum(self._count(call) for _, call in self.first_counted.values())

    def _upkeep(self, step: h.Upkeep) -> None:
        over = [one for one in self.reservations if not (one.settled or one.released) and one.ends <= self.now]
        for one in over:
            one.released = True
        self.seen["a reservation is released"] += len(over)

    def _chosen(self, step: h.Chosen) -> None:
        if step.account in self.accounts:
            self.accounts[step.account].policy = step.policy

    def _count(self, call: h.Call) -> bool:
        """Whether the call is debited now."""
        there = self._latest(call.reserved) if call.reserved else None
        billed = call.decision in ("billable", "failed_with_cost")
        amount = Decimal(call.billed) if call.billed is not None else Decimal(call.cost) if billed else ZERO
        paid = False
        if there is not None:
            if amount > 0 and there.stands_for is None:
                there.stands_for = call.number
            paid = f"settle:{call.reserved}" in self.answers and there.stands_for == call.number
            there.settled = there.settled or not there.released
        mine = self.accounts.get(call.account)
        if mine is None or amount == 0 or paid or call.number in self.debited:
            self.seen["a settlement stands for a record"] += paid
            return False
        if there is None and mine.since > min(call.ended, self.first_counted[call.number][0]):
            self.seen["a call is older than its account"] += 1
            return False
        self.seen["a call is debited beyond the balance"] += amount > mine.balance
        self.seen["a call costs more than was reserved"] += there is not None and amount > there.amount
        self.debited.add(call.number)
        mine.goes(amount)
        self.trail.append((call.account, "debit", -amount))
        return True

    def _opened(self, name: str) -> Account:
        return self.accounts.setdefault(name, Account(self.now))

    def _held(self, name: str) -> Decimal:
        """The amount reserved now."""
        mine = [one for one in self.reservations if one.account == name and one.ends > self.now]
        return sum((one.amount for one in mine if not (one.settled or one.released)), ZERO)

    def _latest(self, call: str, *, released: bool = True) -> Reservation | None:
        found = [one for one in self.reservations if one.call == call and (released or not one.released)]
        return found[-1] if found else None

    def _lapse(self) -> None:
        for name, account in self.accounts.items():
            if gone := account.lapse(self.now, self._held(name)):
                self.seen["credits expire"] += 1
                self.trail.append((name, "expiry", -gone))
            over = [one for one in account.grants if one.left and one.ends is not None and one.ends <= self.now]
            self.seen["what is reserved does not expire"] += bool(over)

    def _once(self, key: str, contents: tuple[Any, ...], move: Any) -> Any:
        """Repeats the first answer; a refused request has not used its key."""
        if key in self.answers:
            before, answer = self.answers[key]
            self.seen["a key comes again"] += before == contents
            self.seen["a key comes with other contents"] += before != contents
            return answer if before == contents else CONFLICT
        answer = move()
        if key and not isinstance(answer, str):
            self.answers[key] = (contents, answer)
        return answer
