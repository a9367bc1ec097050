"""Sums calls and dollars of one batch by decision, and adds them to the earlier totals; pure."""

from collections.abc import Iterable
from decimal import Decimal

from msgspec.structs import replace

from schemas.ledger import Position, Sum
from streams.core.metering.decisions import BILLABLE, FAILED_WITH_COST, METERED, UNBILLED

_NONE = Sum()


def set_apart(apart: dict[str, Sum], decision: str, cost: Decimal) -> None:
    """Count a call whose decision is not the usual one."""
    apart[decision] = apart.get(decision, _NONE) + Sum(1, cost)


def moved(position: Position, apart: dict[str, Sum], folded: Sum, duplicate: Sum, rejected: Sum) -> Position:
    """Return the position with the sums of a batch added. Folded calls that were not set apart are billable.

    Args:
        apart: calls and dollars by decision.
    """
    usual = folded - _total_of(apart, (FAILED_WITH_COST, METERED))
    now = {**apart, BILLABLE: usual} if usual.calls else apart
    unbilled = _total_of(now, UNBILLED)
    before, counters = position.decisions, position.counters
    return replace(
        position,
        decisions={**before, **{decision: before.get(decision, _NONE) + more for decision, more in now.items()}},
        counters=replace(
            counters,
            received=sum((folded, duplicate, rejected, unbilled), counters.received),
            folded=counters.folded + folded,
            duplicate=counters.duplicate + duplicate,
            rejected=counters.rejected + rejected,
            unbilled=counters.unbilled + unbilled,
        ),
    )


def _total_of(by_decision: dict[str, Sum], decisions: Iterable[str]) -> Sum:
    return sum((by_decision.get(decision, _NONE) for decision in decisions), _NONE)
