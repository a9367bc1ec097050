"""Random movements of credits on real Postgres against a slow model in Python: the same answers and the same balances."""

import asyncio
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, ClassVar

import asyncpg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from connectors.postgres.migrate import migrate
from tests.support.database import fresh_database

NAMES = st.sampled_from(["user:ada", "user:bob", "org:acme"])
CALLS = st.sampled_from([f"c{n}" for n in range(6)])
DOLLARS = st.decimals("0.01", "20", places=2)
KEYS = st.sampled_from([None, "k1", "k2", "k3"])


@dataclass
class Account:
    """What an account has. Fields: grants: what is left of each, in the order in which they are used: `[order, amount]`."""

    policy: str = "repay"
    owed: Decimal = Decimal(0)
    grants: list[list[Any]] = field(default_factory=list)

    @property
    def balance(self) -> Decimal:
        return sum((left for _, left in self.grants), Decimal(0))

    def move(self, amount: Decimal, order: int = 9) -> None:
        """Add credits, or take them; the grants that are used first have the smallest order."""
        if amount > 0:
            repaid = min(self.owed, amount) if self.policy == "repay" else Decimal(0)
            self.owed -= repaid
            if amount > repaid:
                self.grants.append([order, amount - repaid])
            self.grants.sort(key=lambda grant: grant[0])
            return
        rest = -amount
        for grant in self.grants:
            used = min(grant[1], rest)
            grant[1] -= used
            rest -= used
        self.owed += rest


@dataclass
class Reservation:
    account: str
    amount: Decimal
    open: bool = True
    paid: bool = False
    identity: bytes | None = None

    def serves(self, identity: bytes, own: list[str]) -> bool:
        """Whether it is for a call of these accounts."""
        if self.account not in own:
            return False
        return self.identity == identity or (self.identity is None and (self.paid or self.open))


class Movements(RuleBasedStateMachine):
    """One connection, whose tables are emptied before each history."""

    runner: ClassVar[asyncio.Runner]
    connection: ClassVar[Any]

    def __init__(self) -> None:
        super().__init__()
        for name in ("credit_transactions", "ledger_entries", "ledger_transactions"):
            self.run(self.connection.execute, f"ALTER TABLE {name} DISABLE TRIGGER USER")
        self.run(
            self.connection.execute,
            """DELETE FROM credit_transactions; DELETE FROM credit_grants; DELETE FROM credit_reservations;
            DELETE FROM ledger_entries; DELETE FROM ledger_transactions; DELETE FROM user_credits;
            DELETE FROM ledger_accounts WHERE kind <> 'system'""",
        )
        for name in ("credit_transactions", "ledger_entries", "ledger_transactions"):
            self.run(self.connection.execute, f"ALTER TABLE {name} ENABLE TRIGGER USER")
        self.accounts: dict[str, Account] = {}
        self.keys: dict[str, tuple[Any, ...]] = {}
        self.reserved: dict[str, Reservation] = {}
        self.debited: set[bytes] = set()

    def run(self, ask: Any, *arguments: Any) -> Any:
        return self.runner.run(ask(*arguments))

    def asked(self, statement: str, *arguments: Any) -> Any:
        """The row of the answer; `MB001`: the key has other contents."""
        try:
            return self.run(self.connection.fetchrow, statement, *arguments)
        except asyncpg.PostgresError as error:
            return error.sqlstate

    def known(self, key: str | None, contents: tuple[Any, ...]) -> str:
        """`new`, `same` or `MB001`."""
        if key is None or key not in self.keys:
            return "new"
        return "same" if self.keys[key] == contents else "MB001"

    def held(self, name: str) -> Decimal:
        return sum((one.amount for one in self.reserved.values() if one.open and one.account == name), Decimal(0))

    @rule(
        name=NAMES,
        amount=DOLLARS,
        kind=st.sampled_from(["purchase", "bonus", "refund", "adjustment"]),
        negative=st.booleans(),
        order=st.sampled_from([1, 2, 9]),
        key=KEYS,
    )
    def add(self, name: str, amount: Decimal, kind: str, negative: bool, order: int, key: str | None) -> None:
        amount = -amount if negative and kind in ("refund", "adjustment") else amount
        facts = {} if order == 9 or amount < 0 else {"expires_at": f"209{order}-01-01Z"}
        told = (
            "{"
            + ", ".join(f'"{k}": "{v}"' for k, v in (facts | ({"idempotency_key": key} if key else {})).items())
            + "}"
        )
        found = self.asked(
            "SELECT * FROM add_account_credits($1, $2, $3, p_metadata => $4::jsonb)", name, amount, kind, told
        )
        contents = ("add", name, amount, kind, told)
        state = self.known(key, contents)
        if state == "MB001":
            assert found == "MB001"
            return
        if state == "new":
            self.accounts.setdefault(name, Account()).move(amount, order if facts else 9)
            assert found["new_balance"] == self.accounts[name].balance
            if key:
                self.keys[key] = contents
        assert found["success"]

    @rule(name=NAMES, amount=DOLLARS | st.just(Decimal(0)), key=KEYS)
    def debit(self, name: str, amount: Decimal, key: str | None) -> None:
        told = f'{{"idempotency_key": "{key}"}}' if key else "{}"
        statement = "SELECT * FROM debit_account_credits($1, $2, 'p', 'm', 1, 1, 'eco', $3::jsonb)"
        found = self.asked(statement, name, amount, told)
        contents = ("debit", name, amount)
        state = self.known(key, contents)
        mine = self.accounts.get(name)
        if mine is None:
            assert found["error_message"] == "no credit account"
        elif state == "MB001":
            assert found == "MB001"
        elif state == "same":
            assert found["success"]
        elif amount > mine.balance - self.held(name):
            assert found["error_message"] == "insufficient credits" and found["new_balance"] == mine.balance
        else:
            mine.move(-amount)
            assert found["success"] and found["new_balance"] == mine.balance
            if key:
                self.keys[key] = contents

    @rule(name=NAMES, amount=DOLLARS, call=CALLS, overdraft=st.sampled_from([Decimal(0), Decimal(5)]))
    def authorize(self, name: str, amount: Decimal, call: str, overdraft: Decimal) -> None:
        found = self.asked("SELECT * FROM authorize_credits($1, $2, 600, $3, $4)", name, amount, call, overdraft)
        if name not in self.accounts and not overdraft >= amount:
            assert not found["authorized"]
            return
        if name not in self.accounts and found != "MB001":
            self.accounts[name] = Account()
        if (there := self.reserved.get(call)) is not None:
            same = (there.account, there.amount) == (name, amount)
            assert found["authorized"] if same and there.open else found == "MB001"
            return
        mine = self.accounts[name]
        free = mine.balance - self.held(name) + max(overdraft - mine.owed, Decimal(0))
        assert found["authorized"] is (amount <= free)
        if amount <= free:
            self.reserved[call] = Reservation(name, amount)
            assert found["available"] == free - amount

    @rule(call=CALLS, amount=DOLLARS | st.just(Decimal(0)))
    def settle(self, call: str, amount: Decimal) -> None:
        found = self.asked("SELECT * FROM settle_reservation($1, $2)", call, amount)
        there = self.reserved.get(call)
        if there is None:
            assert found["error_message"] == "no reservation"
            return
        key, contents = f"settle:{call}", ("settle", amount)
        if (state := self.known(key, contents)) == "MB001":
            assert found == "MB001"
            return
        if state == "new" and there.open and there.identity is None and amount:
            self.accounts[there.account].move(-amount)
            self.keys[key] = contents
            there.paid = True
        there.open = False
        assert found["success"]

    @rule(numbers=st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True))
    def project(self, numbers: list[int]) -> None:
        """A batch of calls: what a number is stays the same, however often it comes."""
        calls = [
            (
                bytes([n]),
                f"c{n % 8}" if n % 3 else "",
                ("ada", "bob", "zoe")[n % 3],
                ("", "acme")[n % 2],
                Decimal(n % 7) / 2,
                n % 5 > 0,
            )
            for n in numbers
        ]
        statement = """SELECT * FROM debit_calls($1, $2, $3, array_fill(''::text, ARRAY[$7::int]), $4,
            array_fill(''::text, ARRAY[$7::int]), $5, array_fill(now(), ARRAY[$7::int]), array_fill(now(), ARRAY[$7::int]),
            $6, $2, $2, array_fill(1::bigint, ARRAY[$7::int]), array_fill(1::bigint, ARRAY[$7::int]), $2)"""
        found = self.asked(statement, *map(list, zip(*calls, strict=True)), len(calls))
        owed, count = sum((one.owed for one in self.accounts.values()), Decimal(0)), 0
        before = {call: replace(there) for call, there in self.reserved.items()}
        settling: dict[str, tuple[bool, bytes]] = {}
        served = set()
        for identity, call, user, org, amount, succeeded in calls:
            if identity in self.debited:
                continue
            own = [name for name in (f"user:{user}", f"org:{org}") if name in self.accounts]
            there = before.get(call)
            if there is not None and not there.serves(identity, own):
                there = None
            if there is None and not own:
                continue
            paid = there is not None and there.paid and (there.identity == identity or (call, amount > 0) not in served)
            if there is not None:
                served.add((call, amount > 0))
                if (succeeded or paid) and (call not in settling or (amount > 0) > settling[call][0]):
                    settling[call] = amount > 0, identity
            if amount and not paid:
                self.debited.add(identity)
                self.accounts[own[0] if there is None else there.account].move(-amount)
                count += 1
        for call, (costs, identity) in settling.items():
            there = self.reserved[call]
            there.open = False
            if costs and there.identity is None:
                there.identity = identity
        assert found["calls"] == count
        assert found["overdraft"] == sum((one.owed for one in self.accounts.values()), Decimal(0)) - owed

    @rule(name=NAMES, policy=st.sampled_from(["repay", "keep"]))
    def choose(self, name: str, policy: str) -> None:
        if name in self.accounts:
            self.accounts[name].policy = policy
            self.run(
                self.connection.execute,
                "UPDATE user_credits SET overdraft_policy = $2 WHERE account = $1",
                name,
                policy,
            )

    @rule(call=CALLS)
    def time_passes(self, call: str) -> None:
        """A reservation expires, and is released by the upkeep."""
        if (there := self.reserved.get(call)) is not None and there.open:
            self.run(self.connection.execute, "UPDATE credit_reservations SET expires_at = now() WHERE call_id = $1 "
                     "AND settled_at IS NULL AND released_at IS NULL", call)  # fmt: skip
            assert self.asked("SELECT release_expired_reservations() AS n")["n"] == 1
            # Its call may still come; a further reservation would be another one.
            there.open = False
            self.run(self.connection.execute, "UPDATE credit_reservations SET settled_at = released_at, released_at = NULL "
                     "WHERE call_id = $1 AND released_at IS NOT NULL", call)  # fmt: skip

    @invariant()
    def balances_agree(self) -> None:
        query = "SELECT account, balance, overdraft, get_account_balance(account) AS shown FROM user_credits"
        found = {row["account"]: tuple(row)[1:] for row in self.run(self.connection.fetch, query)}
        assert found == {name: (one.balance, one.owed, one.balance) for name, one in self.accounts.items()}
        query = (
            "SELECT account, remaining FROM credit_grants WHERE remaining > 0 ORDER BY account, expires_at, grant_id"
        )
        assert [tuple(row) for row in self.run(self.connection.fetch, query)] == [
            (name, left) for name, one in sorted(self.accounts.items()) for _, left in one.grants if left
        ]
        assert self.run(self.connection.fetch, "SELECT * FROM credit_imbalances") == []


def test_random_movements_are_as_in_the_model(postgres_url: str) -> None:
    with asyncio.Runner() as runner:
        scope = fresh_database(postgres_url)
        url = runner.run(scope.__aenter__())
        runner.run(migrate(url))
        Movements.runner, Movements.connection = runner, runner.run(asyncpg.connect(url))
        try:
            run_state_machine_as_test(
                Movements,
                settings=settings(
                    max_examples=40,
                    stateful_step_count=25,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    phases=[Phase.reuse, Phase.generate],
                ),
            )
        finally:
            runner.run(Movements.connection.close())
            runner.run(scope.__aexit__(None, None, None))
