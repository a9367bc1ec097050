"""The two equations of a ledger. Every received call is folded, a duplicate, rejected or unbilled. Every folded call is
sealed, written off or in a window.
"""

from collections.abc import Iterable
from decimal import Decimal

from schemas.ledger import Counters, Sum, Window
from schemas.money import add


def sum_of_windows(windows: Iterable[Window]) -> Sum:
    """Return calls and cost of all `windows` together."""
    calls, cost = 0, Decimal(0)
    for window in windows:
        calls += window.count
        cost = add(cost, window.cost)
    return Sum(calls, cost)


def difference(counters: Counters, windows: Iterable[Window]) -> tuple[Sum, Sum]:
    """Return the differences in the two equations of conservation, if `windows` are all windows."""
    return off_by(counters, sum_of_windows(windows))


def off_by(counters: Counters, waiting: Sum) -> tuple[Sum, Sum]:
    """Return the differences in the two equations of conservation; both are zero in a correct ledger."""
    received = counters.received - counters.folded - counters.duplicate - counters.rejected - counters.unbilled
    return received, counters.folded - counters.sealed - counters.written_off - waiting
