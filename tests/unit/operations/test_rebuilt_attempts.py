"""What a rebuilt ledger remembers of failed attempts: none of them is taken for one that a success carries, if it was billed."""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.kafka.topic_scan import OffsetRange
from connectors.operations import rebuild_evidence
from connectors.operations.rebuild_evidence import Evidence, _Calls, _remember
from schemas.moments import SECOND_US
from schemas.policy import MeterPolicy
from schemas.rounding import quantum
from schemas.topics import TopicNames
from streams.core.metering.decisions import BILLABLE, CARRIED, FAILED_WITH_COST
from streams.core.metering.read_usage import usage_of
from streams.state.ledger_restart import EmittedTotals
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.folding import Partition

DEPLOYMENT: Any = SimpleNamespace(policy=MeterPolicy(), kafka=None, name="d", topics=TopicNames.with_prefix(""))


def call(number: int, cost: str, *, seconds: int, **fields: Any) -> Raw:
    at_us = NOON + seconds * SECOND_US
    of_call = slp(number, at_us=at_us, cost=cost, litellm_call_id="call-x", **fields)
    return raw(0, of_call, customer="acme", received_us=at_us)


class Stored:
    """A record of the raw topic."""

    def __init__(self, offset: int, record: Raw) -> None:
        self._offset, self._record = offset, record

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, self._record.timestamp


def remembered(
    monkeypatch: pytest.MonkeyPatch, evidence: Evidence, records: Iterable[Raw], calls: _Calls, again_from: int | None
) -> None:
    stored = [Stored(offset, record) for offset, record in enumerate(records)]
    monkeypatch.setattr(rebuild_evidence, "scan", lambda _kafka, _range: iter(stored))
    _remember(DEPLOYMENT, evidence, OffsetRange("raw", {0: (0, len(stored))}), calls, again_from)


def cost_of(evidence: Evidence, *records: Raw) -> Decimal:
    """Return what a ledger with this evidence bills of these records."""
    part = Partition()
    part.ledger.jobs.update(evidence.jobs)
    return part.take(*records).cost


FAILED = {"status": "failure", "cost": "0.001", "seconds": 0}


def test_an_attempt_that_is_counted_again_was_billed_beside_its_success_and_is_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report of a second attempt was lost, so the success carries more than the first."""
    attempt = call(1, **FAILED)
    success = call(2, "0.0055", seconds=3, carried_cost=Decimal("0.003"))
    calls = _Calls(settled={1: BILLABLE}, noted={1: Decimal("0.0045")}, waiting={0: NOON}, attempts={0})
    evidence = Evidence(0)
    remembered(monkeypatch, evidence, [attempt, success], calls, 0)
    assert cost_of(evidence, attempt) == Decimal("0.001")


def test_an_attempt_that_costs_more_than_is_carried_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    dear = call(1, "0.002", seconds=0, status="failure")
    success = call(2, "0.0055", seconds=3, carried_cost=Decimal("0.001"))
    calls = _Calls(settled={1: BILLABLE}, waiting={0: NOON}, attempts={0})
    evidence = Evidence(0)
    remembered(monkeypatch, evidence, [dear, success], calls, 0)
    assert cost_of(evidence, dear, call(3, **FAILED)) == Decimal("0.002")


def test_of_an_attempt_that_carries_another_only_its_own_cost_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It came before the success, which carries less than it costs, so it was billed beside the success."""
    attempt = call(1, "0.002", seconds=0, status="failure", carried_cost=Decimal("0.001"))
    success = call(2, "0.0055", seconds=3, carried_cost=Decimal("0.0015"))
    calls = _Calls(settled={1: BILLABLE}, waiting={0: NOON}, attempts={0})
    evidence = Evidence(0)
    remembered(monkeypatch, evidence, [attempt, success], calls, 0)
    assert cost_of(evidence, attempt) == Partition().take(attempt).cost == Decimal("0.002")


@pytest.mark.parametrize("is_success_again", [False, True])
def test_a_carried_attempt_is_counted_again_only_with_its_success(
    monkeypatch: pytest.MonkeyPatch, is_success_again: bool
) -> None:
    """A first attempt is counted again, and is billed beside the success. Earlier the second one was billed, too."""
    first, carried = call(1, **FAILED), call(3, "0.002", seconds=1, status="failure")
    success = call(2, "0.0055", seconds=3, carried_cost=Decimal("0.003"))
    part = Partition().take(first, success, carried)
    assert (part.cost, part.decisions[CARRIED]) == (Decimal("0.0055"), 1)
    calls = _Calls(settled={2: CARRIED}, waiting={0: NOON}, attempts={0})
    if is_success_again:
        calls.waiting[1] = NOON
    else:
        calls.settled[1], calls.noted[1] = BILLABLE, Decimal("0.0045")
    evidence = Evidence(0)
    remembered(monkeypatch, evidence, [first, success, carried], calls, 0)
    known = usage_of(carried.value, "acme", quantum()).identity in evidence.seen
    assert known is not is_success_again
    again = [record for offset, record in enumerate((first, success, carried)) if offset in calls.waiting]
    left_before = Decimal(0) if is_success_again else Decimal("0.0045")
    assert left_before + cost_of(evidence, *again, *([] if known else [carried])) == part.cost


def test_an_attempt_of_a_customer_with_a_very_long_name_is_known_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger keeps such a name as a hash."""
    attempt, success = call(1, **FAILED), call(2, "0.0055", seconds=3, carried_cost=Decimal("0.001"))
    for record in (attempt, success):
        record.key = b"a" * 300
    evidence = Evidence(1)
    remembered(monkeypatch, evidence, [attempt], _Calls(settled={0: FAILED_WITH_COST}), 1)
    assert cost_of(evidence, success) == Decimal("0.0045")


def test_without_such_an_attempt_a_success_absorbs_what_it_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    success = call(2, "0.0055", seconds=3, carried_cost=Decimal("0.001"))
    evidence = Evidence(1)
    remembered(monkeypatch, evidence, [success], _Calls(settled={0: BILLABLE}), 1)
    assert cost_of(evidence, call(1, **FAILED)) == 0


def test_the_partitions_from_which_a_topic_grew_are_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt in the new partition has used up what its success in the old one carries."""
    success = call(2, "0.0055", seconds=3, carried_cost=Decimal("0.001"))
    topics = {0: ([success], _Calls(settled={0: BILLABLE})), 1: ([call(1, **FAILED)], _Calls(settled={0: CARRIED}))}

    def scan(_kafka: object, part: OffsetRange) -> Iterator[Stored]:
        [number] = part.ranges
        return iter([Stored(offset, record) for offset, record in enumerate(topics[number][0])])

    monkeypatch.setattr(rebuild_evidence, "scan", scan)
    monkeypatch.setattr(rebuild_evidence, "_read_calls", lambda _deployment, number, *_: topics[number][1])
    monkeypatch.setattr(rebuild_evidence, "_gone", lambda *_: (set(), 0))
    monkeypatch.setattr(rebuild_evidence, "_known_from", lambda *_: 0)
    monkeypatch.setattr(rebuild_evidence, "sealed_before", lambda *_: EmittedTotals())
    ranges = SimpleNamespace(ranges={0: (0, 1), 1: (0, 1)})
    monkeypatch.setattr(rebuild_evidence, "offset_range_of", lambda *_: ranges)
    evidence = rebuild_evidence.evidence_of(DEPLOYMENT, "id", 1, 1, 1, [0])
    assert cost_of(evidence, call(3, **FAILED)) == Decimal("0.001")
