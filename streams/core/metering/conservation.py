"""The two equations of a ledger: what was received is folded, repeated, rejected or unbilled; what was folded is sealed, written off
or waits in a window."""

from collections.abc import Iterable
from decimal import Decimal

from schemas.ledger import Counters, Sum, Window
from schemas.money import add


def sum_of_windows(windows: Iterable[Window]) -> Sum:
    """Calls and cost of all `windows` together."""
    calls, cost = 0, Decimal(0)
    for window in windows:
        calls += window.count
        cost = add(cost, window.cost)
    return Sum(calls, cost)


def difference(counters: Counters, windows: Iterable[Window]) -> tuple[Sum, Sum]:
    """By how much the two equations of conservation fail, where `windows` are all that exist."""
    return off_by(counters, sum_of_windows(windows))


def off_by(counters: Counters, waiting: Sum) -> tuple[Sum, Sum]:
    """By how much the two equations of conservation fail; both sums are zero in a ledger that adds up."""
    received = counters.received - counters.folded - counters.duplicate - counters.rejected - counters.unbilled
    return received, counters.folded - counters.sealed - counters.written_off - waiting
