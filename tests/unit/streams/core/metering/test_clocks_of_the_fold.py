"""Which clock is believed: the call's, the ingress's or the partition's; each test has one wrong clock."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ledger import Position
from schemas.moments import HOUR_US, SECOND_US, parse_us
from schemas.policy import MeterPolicy
from schemas.records import EnrichedUsage
from streams.core.mapping.resolve import Target
from streams.core.metering.decisions import DUPLICATE
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes, apply
from tests.support.calls import NOON, Raw, raw, slp

DAY_US = 24 * HOUR_US
MIDNIGHT = NOON + 12 * HOUR_US
POLICY = MeterPolicy()


def subscribed(_customer: str, _at_us: int, _kind: str) -> Target:
    return Target("org", "sub", "")


class Ledger:
    """One partition, folded record by record or all at once."""

    def __init__(self) -> None:
        self.ledger = LedgerState(Position())
        self.ends: list[int] = []
        self.notes: list[str] = []
        self.decisions: dict[str, int] = {}
        self._fold = Fold(POLICY, "d-t-0-")

    def fold(self, records: list[Raw], latest_us: int | None = None) -> Changes:
        limit = {} if latest_us is None else {"latest_ms": latest_us // 1000}
        changes = self._fold(self.ledger, records, subscribed, **limit)
        apply(self.ledger, changes, NOON)
        for name, count in changes.decisions.items():
            self.decisions[name] = self.decisions.get(name, 0) + count
        result = [msgspec.json.decode(value, type=EnrichedUsage) for _, value in changes.enriched]
        self.notes += [one.note for one in result]
        self.ends += [parse_us(one.end) for one in result]
        return changes


def record(offset: int, *, ended_us: int, received_us: int) -> Raw:
    return raw(offset, slp(offset, at_us=ended_us), received_us=received_us)


def test_a_call_through_an_ingress_two_hours_slow_is_billed_on_its_own_day() -> None:
    """It ended at 01:00 and was received at 23:00 by a clock that differs from that of the other ingresses."""
    ledger = Ledger()
    ledger.fold([record(0, ended_us=MIDNIGHT + HOUR_US, received_us=MIDNIGHT + HOUR_US)])
    ledger.fold([record(1, ended_us=MIDNIGHT + HOUR_US, received_us=MIDNIGHT - HOUR_US)])
    assert ledger.ends == [MIDNIGHT + HOUR_US] * 2
    assert ledger.notes == ["", ""]


def test_the_workers_clock_overrides_a_slow_ingress_that_is_the_only_one() -> None:
    ledger = Ledger()
    ledger.fold([record(0, ended_us=MIDNIGHT + HOUR_US, received_us=MIDNIGHT - HOUR_US)], MIDNIGHT + HOUR_US)
    assert (ledger.ends, ledger.notes) == ([MIDNIGHT + HOUR_US], [""])


def test_an_end_that_the_workers_clock_does_not_confirm_either_is_not_believed() -> None:
    ledger = Ledger()
    ledger.fold([record(0, ended_us=NOON + HOUR_US, received_us=NOON)], NOON + SECOND_US)
    assert (ledger.ends, ledger.notes) == ([NOON], ["future_time"])


def test_kafkas_record_time_overrides_an_ingresss_clock_in_both_directions() -> None:
    """A wrong time from an ingress has been corrected by Kafka or the ingress itself by then: the record's time is
    right.
    """
    slow = replace(record(0, ended_us=NOON, received_us=NOON - 2 * HOUR_US), timestamp=NOON // 1000)
    fast = replace(raw(1, {**slp(1), "endTime": None, "startTime": None}, received_us=NOON + 25 * HOUR_US))
    fast = replace(fast, timestamp=NOON // 1000)
    ledger = Ledger()
    ledger.fold([slow, fast])
    assert ledger.ends == [NOON, NOON]


def test_a_call_that_no_clock_confirms_ends_when_it_was_received() -> None:
    ledger = Ledger()
    ledger.fold([record(0, ended_us=NOON + HOUR_US, received_us=NOON)])
    assert (ledger.ends, ledger.notes) == ([NOON], ["future_time"])


def test_a_record_400_days_ahead_does_not_exclude_later_calls() -> None:
    """In an earlier version every call after it was beyond the dedupe retention for 399 days."""
    ledger = Ledger()
    ledger.fold([record(0, ended_us=NOON, received_us=NOON)], NOON)
    ledger.fold([record(1, ended_us=NOON + 400 * DAY_US, received_us=NOON + 400 * DAY_US)], NOON + 1000)
    assert ledger.ledger.position.clock_ms <= (NOON + 1000) // 1000
    ledger.fold([record(2, ended_us=NOON + SECOND_US, received_us=NOON + SECOND_US)], NOON + SECOND_US)
    assert ledger.decisions == {"billable": 2, "rejected:beyond_horizon": 1}, "kept aside, not lost"
    assert ledger.ledger.position.clock_ms == (NOON + SECOND_US) // 1000


@pytest.mark.parametrize("behind_h", [-24, -1, 0, 1, 24, 24 * 30])
def test_a_worker_with_a_wrong_clock_forgets_no_identity_early(behind_h: int) -> None:
    """A repeat is recognised as long as it is within the dedupe retention, however slow the clock of the worker that
    folded the call.
    """
    ledger = Ledger()
    ledger.fold([record(0, ended_us=NOON, received_us=NOON)], NOON - behind_h * HOUR_US)
    for hours in range(1, 40):
        at_us = NOON + hours * HOUR_US
        ledger.fold([record(hours, ended_us=at_us, received_us=at_us)], at_us)
        again = replace(record(0, ended_us=NOON, received_us=NOON), offset=100 + hours, timestamp=at_us // 1000)
        ledger.fold([again], at_us)
    assert ledger.decisions["billable"] == 40
    assert ledger.decisions[DUPLICATE] >= 22


def test_a_call_whose_end_was_not_believed_is_remembered_until_that_end_is_beyond_the_retention() -> None:
    """First received by an ingress 25 hours slow; the repeat comes through a right one."""
    ledger = Ledger()
    call = record(0, ended_us=NOON, received_us=NOON - 25 * HOUR_US)
    ledger.fold([call], NOON)
    for hours in (0, 1, 20):
        at_ms = (NOON + hours * HOUR_US) // 1000
        ledger.fold([replace(call, offset=1 + hours, timestamp=at_ms)], at_ms * 1000)
    assert ledger.decisions == {"billable": 1, DUPLICATE: 3}


@pytest.mark.parametrize(("ahead_h", "again_h"), [(240, 96), (240, 216), (60, 74), (72, 400)])
def test_a_replay_of_a_call_whose_end_is_days_ahead_bills_nothing(ahead_h: int, again_h: int) -> None:
    """Its identity is forgotten by then: it counts as ended at its receipt, so it is beyond the dedupe retention, and
    the usage log knows it.
    """
    ledger = Ledger()
    call = record(0, ended_us=NOON + ahead_h * HOUR_US, received_us=NOON)
    ledger.fold([call], NOON)
    ledger.fold([record(1, ended_us=NOON + again_h * HOUR_US, received_us=NOON + again_h * HOUR_US)])
    again_ms = (NOON + again_h * HOUR_US) // 1000
    ledger.fold([replace(call, offset=2, timestamp=again_ms)], again_ms * 1000)
    assert ledger.decisions == {"billable": 2, "rejected:beyond_horizon": 1}


def test_calls_of_a_batch_are_remembered_by_their_own_time_even_if_one_record_is_days_ahead() -> None:
    """The partition was idle for ten hours. A record days ahead moves its clock to the worker's; the call beside it
    ended before.
    """
    ledger = Ledger()
    ledger.fold([record(0, ended_us=NOON, received_us=NOON)])
    now_us = NOON + 10 * HOUR_US
    ahead = replace(record(1, ended_us=NOON - HOUR_US, received_us=now_us), timestamp=(now_us + 3 * DAY_US) // 1000)
    changes = ledger.fold([ahead, record(2, ended_us=NOON - HOUR_US, received_us=NOON)], now_us)
    assert ledger.ledger.position.clock_ms == now_us // 1000
    assert changes.seen_hour == now_us // HOUR_US


#: No two are further apart than a record is believed beyond the clock.
moments = st.integers(-24, 24).map(lambda hours: NOON + hours * HOUR_US)


@given(
    st.lists(st.tuples(st.integers(0, 6), moments, moments, moments), min_size=1, max_size=25),
)
def test_no_call_is_billed_twice_for_any_clocks_of_ingress_and_worker(
    found: list[tuple[int, int, int, int]],
) -> None:
    """Each call has one end; the records' times and the workers' clocks are arbitrary."""
    ends: dict[int, int] = {}
    ledger, billed = Ledger(), list[int]()
    for offset, (number, end_us, time_us, worker_us) in enumerate(found):
        ends.setdefault(number, end_us)
        one = replace(raw(offset, slp(number, at_us=ends[number]), received_us=time_us), timestamp=time_us // 1000)
        before = ledger.decisions.get("billable", 0)
        ledger.fold([one], worker_us)
        if ledger.decisions.get("billable", 0) > before:
            billed.append(number)
    assert len(billed) == len(set(billed))


@given(st.lists(st.tuples(moments, moments), min_size=1, max_size=20), st.integers(1, 19), moments)
def test_the_result_of_folding_is_the_same_for_every_split_into_batches(
    times: list[tuple[int, int]], cut: int, latest_us: int
) -> None:
    records = [
        replace(record(n, ended_us=end_us, received_us=time_us), timestamp=time_us // 1000)
        for n, (end_us, time_us) in enumerate(times)
    ]
    whole, parts = Ledger(), Ledger()
    whole.fold(records, latest_us)
    for part in (records[:cut], records[cut:]):
        if part:
            parts.fold(part, latest_us)
    assert (whole.ends, whole.decisions) == (parts.ends, parts.decisions)
    assert whole.ledger.position.clock_ms == parts.ledger.position.clock_ms
