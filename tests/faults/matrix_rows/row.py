"""A row of the fault matrix, and the invariants that rows check."""

from dataclasses import dataclass
from enum import StrEnum


class Check(StrEnum):
    """An invariant: a mark of the tables, and what must be true once the fault is over."""

    NOTHING_LOST = "Every call answered with 202 is billed, unbilled by a decision, held, or refused with its reason."
    NOTHING_TWICE = "However often an event is posted, one copy of it is billed."
    MONEY_EXACT = "Calls, tokens and cents of every subscription at Lago equal the sent ones, as Decimals."
    LEDGERS_ADD_UP = "Both equations of conservation hold, and sealed parts are numbered without a gap."
    REPEATS_EQUAL = (
        "Id, timestamp, amount and properties of an event are equal in all its posts. Once its billing period is over it "
        "is posted with another timestamp and `usage_end`, equal in all later posts; what may have been posted before "
        "is looked up first."
    )
    WORK_CONTINUES = "Waiting work is done within a bounded time, and a process stops within ten seconds."
    FAULTS_ARE_SHOWN = "A reason, a metric or a log line shows each fault to the operator."


LOST, TWICE, MONEY, BOOKS, SAME, GOES_ON, SAYS_SO = Check
#: What the oracle of `run.py` and of `world.py` looks at, all at once.
EXACT = (LOST, TWICE, MONEY, BOOKS, SAME)


@dataclass(frozen=True, slots=True)
class Row:
    """One fault.

    Fields:
        number: it never changes; a new row takes the next free number.
        injected: how the test causes the fault.
        checks: the invariants that the tests check.
        expected: what the product does.
        tests: `folder/file.py::test` below tests/. The first one is about this fault, the others check it in other places.
        shows: the figures to print; empty = all.
        simulated: why the fault is simulated; `""` = it is real.
        longer: how to run the fault as long as it lasts in reality; `""` = the test does that already.
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
