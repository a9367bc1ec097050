"""A rebuilt ledger counts open calls again. If it does not bill one, the enriched topic says so: the tables have the lost ledger's."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from schemas.ledger import Position
from schemas.policy import MeterPolicy
from streams.core.metering.ledger_state import LedgerState
from tests.support.calls import Raw, raw, slp
from tests.support.folding import Partition

STRICT = replace(MeterPolicy(), max_usd_per_call=Decimal(1))


def rebuilt(policy: MeterPolicy, *records: Raw, upto: int = 1) -> list[Any]:
    """Return what a ledger of a partition writes whose lost ledger had counted the first `upto` records."""
    part = Partition(policy, LedgerState(Position(recounted_to=upto))).take(*records)
    return [{name: one.get(name) for name in ("offset", "decision", "part", "ledger")} for one in part.enriched]


def costly(number: int = 1, cost: str = "5", **fields: Any) -> Raw:
    return raw(0, slp(number, cost=cost, **fields))


def test_only_a_call_that_the_lost_ledger_may_have_counted_has_a_record_of_its_rejection() -> None:
    assert rebuilt(STRICT, costly(1), costly(2)) == [
        {"offset": 0, "decision": "rejected", "part": None, "ledger": "d-t-0-"}
    ]
    assert rebuilt(STRICT, costly(), upto=0) == []


def test_a_copy_with_a_cost_that_a_policy_excludes_now_has_a_record_that_says_so() -> None:
    """The lost ledger had billed it in place of the first copy, which had no cost."""
    skip = replace(MeterPolicy(), bill_byok=False)
    first, copy = costly(cost="0"), costly(byok=True)
    assert [one["decision"] for one in rebuilt(skip, first, copy, upto=2)] == ["unpriced", "byok"]
    assert [one["decision"] for one in rebuilt(skip, first, copy, first, upto=1)] == ["unpriced"]


def test_a_repeat_of_a_billed_call_has_no_record() -> None:
    assert [one["decision"] for one in rebuilt(MeterPolicy(), costly(), costly(cost="6"), upto=2)] == ["billable"]
