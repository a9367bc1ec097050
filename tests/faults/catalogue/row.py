"""A row of the fault matrix, and the invariants that rows check."""

from dataclasses import dataclass
from enum import StrEnum


class Check(StrEnum):
    """An invariant: a mark of the tables, and what must be true once the fault is over."""

    NOTHING_LOST = "Every call answered with 202 is billed, unbilled by a decision, held, or refused with its reason."
    NOTHING_TWICE = "However often an event is posted, one copy of it is billed."
    MONEY_EXACT = "Calls, tokens and cents of every subscription at Lago equal the sent ones, as Decimals."
    BOOKS_ADD_UP = "Both laws of conservation, and sealed parts numbered without a gap."
    REPEATS_EQUAL = (
        "Id, timestamp, amount and properties of an event are equal in all its posts. Once its billing period is over it "
        "is posted with another timestamp and `usage_end`, equal in all later posts; what may have been posted before "
        "is looked up first."
    )
    GOES_ON = "Waiting work is done within a bounded time, and a process stops within ten seconds."
    SAYS_SO = "A reason, a metric or a log line shows the operator each fault."


LOST, TWICE, MONEY, BOOKS, SAME, GOES_ON, SAYS_SO = Check
#: What the oracle of `run.py` and of `world.py` looks at, all at once.
EXACT = (LOST, TWICE, MONEY, BOOKS, SAME)


@dataclass(frozen=True, slots=True)
class Row:
    """One fault.

    Fields:
        number: for life; a new row takes the next one that is free.
        injected: how it is made to happen.
        checks: invariants that the tests look at.
        expected: what the product does about it.
        tests: `folder/file.py::test` below tests/; the first is the row's own, the others see it in another place.
        shows: figures to print; all where empty.
        simulated: why it is not done to the real thing; `""` where it is.
        longer: how it runs for as long as in life; `""` where it does anyway.
    """

    number: int
    fault: str
    injected: str
    checks: tuple[Check, ...]
    expected: str
    tests: tuple[str, ...]
    shows: tuple[str, ...] = ()
    simulated: str = ""
    longer: str = ""
