"""Sums calls and dollars of one batch by decision, and adds them to the earlier totals; pure."""

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from schemas.ledger import Counters, Sum
from streams.core.metering.decisions import BILLABLE, FAILED_WITH_COST, METERED

_NONE = Sum()


def set_apart(apart: dict[str, Sum], decision: str, cost: Decimal) -> None:
    """Count a call whose decision is not the usual one."""
    apart[decision] = apart.get(decision, _NONE) + Sum(1, cost)


def by_decision_of(apart: dict[str, Sum], folded: Sum) -> dict[str, Sum]:
    """Return calls and dollars by decision. Folded calls that were not set apart are billable."""
    usual = folded - total_of(apart, (FAILED_WITH_COST, METERED))
    return {**apart, BILLABLE: usual} if usual.calls else apart


def total_of(by_decision: dict[str, Sum], decisions: Iterable[str]) -> Sum:
    """Return calls and dollars of several decisions together."""
    return sum((by_decision.get(decision, _NONE) for decision in decisions), _NONE)


def counted(counters: Counters, **now: Sum) -> Counters:
    """Return the counters after a batch: each with the batch's part added, and `received` with the sum of all parts."""
    sums = {name: getattr(counters, name) + more for name, more in now.items()}
    return msgspec.structs.replace(counters, received=sum(now.values(), counters.received), **sums)


def added_to(before: dict[str, Sum], now: dict[str, Sum]) -> dict[str, Sum]:
    """Return the sums by decision, with those of a batch added."""
    return {**before, **{decision: before.get(decision, _NONE) + more for decision, more in now.items()}}
