"""A history of prepaid credits: events of accounts, step by step, as plain data. The model and the product read it.

Moments are whole seconds since the history began, each step later than the one ahead of it. Amounts are dollars as text.
"""

import random
from dataclasses import dataclass, replace

from tests.model.history import Step

MINUTE, HOUR, DAY = 60, 3600, 86_400
ACCOUNTS = ("user:ada", "user:bob", "org:acme")
REPAY, KEEP = "repay", "keep"


@dataclass(frozen=True)
class Call:
    """A counted LiteLLM call; `number` is its identity, `reserved` the call id of its reservation.

    Without `billed` its cost is billed, if its decision is billable.
    """

    number: int
    account: str
    ended: int
    decision: str
    cost: str
    billed: str | None
    reserved: str


@dataclass(frozen=True)
class Given(Step):
    """Credits are added, or removed with a negative amount, with one key (`""`: none). `ends`: None = never."""

    account: str
    amount: str
    kind: str
    ends: int | None
    key: str


@dataclass(frozen=True)
class Debited(Step):
    """A service debits a cost."""

    account: str
    amount: str
    key: str


@dataclass(frozen=True)
class Reserved(Step):
    """A call is about to start: its estimate, the lifetime of the reservation, and the allowed overdraft."""

    account: str
    call: str
    amount: str
    seconds: int
    overdraft: str


@dataclass(frozen=True)
class GivenBack(Step):
    """The call was not made."""

    call: str


@dataclass(frozen=True)
class Settled(Step):
    """A caller reports the cost of the call, because no record may arrive."""

    call: str
    amount: str


@dataclass(frozen=True)
class Counted(Step):
    """Records of calls, each in a batch once; a batch may be repeated."""

    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Replayed(Step):
    """All records again, from the first one, into empty tables of usage."""


@dataclass(frozen=True)
class Upkeep(Step):
    """Expired credits and reservations are ended."""


@dataclass(frozen=True)
class Chosen(Step):
    """An operator chooses what happens with an overdraft."""

    account: str
    policy: str


History = list[Step]

#: Most of a history is about one account, or little would meet in it.
_WHO = [ACCOUNTS[0]] * 10 + [ACCOUNTS[2]] * 2 + [ACCOUNTS[1]]
_AMOUNTS = ("1", "0.01", "2.50", "7", "0.000000000001", "12.345678901234", "4", "4", "6")
_ENDS = (None, MINUTE, HOUR, HOUR, 2 * HOUR, DAY)
_KEYS = ("", "", "", "k1", "k2")
_GAPS = (1, 1, 1, 1, 2, 2, 20, 20, MINUTE, MINUTE, HOUR, HOUR, DAY)
#: How often a step is one that has been before, such as a retry.
_AGAIN = 0.15
#: The number of call ids of an account.
_IDS = 3
_NOT_YET = 0


def history_of(number: int) -> History:
    """The history with this number: it starts with credits, and ends after everything that can expire has expired."""
    chance = random.Random(number)
    calls = [_call(chance, number) for number in range(10)]
    counted: dict[int, Call] = {}
    drawn: History = []
    at = 0
    first = Given(_NOT_YET, ACCOUNTS[0], chance.choice(["10", "15"]), "purchase", chance.choice(_ENDS), "")
    for length in range(chance.randint(10, 32)):
        at += chance.choice(_GAPS)
        again = length and chance.random() < _AGAIN
        step = first if not length else chance.choice(drawn) if again else _step(chance, calls)
        if isinstance(step, Counted):
            for call in step.calls:
                counted.setdefault(call.number, replace(call, ended=at - call.ended))
            step = replace(step, calls=tuple(counted[call.number] for call in step.calls))
        if isinstance(step, Reserved) and _is_over(step.call, at, drawn):
            continue
        drawn.append(replace(step, at=at))
        if isinstance(step, Settled) and (late := tuple(one for one in calls if one.reserved == step.call)):
            at += chance.choice(_GAPS)  # the record comes after all
            late = tuple(counted.setdefault(one.number, replace(one, ended=at - one.ended)) for one in late)
            drawn.append(Counted(at, late))
    return [*drawn, Replayed(at + HOUR), Upkeep(at + 5 * DAY)]


def _is_over(call_id: str, at: int, before: History) -> bool:
    """Whether a call with this id has ended: a proxy gives an id to one call only, and reserves before the call is
    counted.
    """
    reserved = False
    for step in before:
        match step:
            case Reserved(call=call, seconds=seconds) if call == call_id:
                reserved = True
                if at >= step.at + seconds:
                    return True
            case GivenBack(call=call) | Settled(call=call) if call == call_id and reserved:
                return True
            case Counted(calls=calls) if any(call.reserved == call_id for call in calls):
                return True
    return False


def _call(chance: random.Random, number: int) -> Call:
    """A call with this number, maybe with a reservation of its account; it ended some time before it is counted."""
    account = chance.choice(_WHO)
    decision = chance.choice(["billable", "billable", "billable", "failed_with_cost", "failed_call"])
    billed = chance.choice([None, None, "3", "0.000123"])
    reserved = chance.choice(["", f"{account}#{chance.randrange(_IDS)}"])
    ago = 0 if reserved else chance.choice([0, 0, 1, HOUR])
    return Call(number, account, ago, decision, chance.choice(_AMOUNTS), billed, reserved)


def _step(chance: random.Random, calls: list[Call]) -> Step:
    """A step without its time."""
    account, amount, key = chance.choice(_WHO), chance.choice(_AMOUNTS), chance.choice(_KEYS)
    call = f"{account}#{chance.randrange(_IDS)}"
    match chance.choice("ggggg-ccccccrrrrrrrrrdddbssssssupoo"):
        case "g":
            kind = chance.choice(["purchase", "bonus", "bonus", "refund", "adjustment"])
            return Given(_NOT_YET, account, amount, kind, chance.choice(_ENDS), key)
        case "-":
            return Given(_NOT_YET, account, f"-{amount}", chance.choice(["refund", "adjustment"]), None, key)
        case "c":
            return Counted(_NOT_YET, tuple(chance.sample(calls, chance.randint(1, 4))))
        case "r":
            seconds, overdraft = chance.choice([MINUTE, HOUR, DAY, DAY]), chance.choice(["0", "0", "0", "8"])
            return Reserved(_NOT_YET, account, call, chance.choice(["4", "6", amount]), seconds, overdraft)
        case "d":
            return Debited(_NOT_YET, account, chance.choice(["6", amount, amount, "0"]), key)
        case "b":
            return GivenBack(_NOT_YET, call)
        case "s":
            return Settled(_NOT_YET, call, chance.choice([amount, amount, "0"]))
        case "o":
            return Chosen(_NOT_YET, account, chance.choice([REPAY, KEEP, KEEP]))
        case "p":
            return Replayed(_NOT_YET)
    return Upkeep(_NOT_YET)
