"""Folding exactly at its borders: to the microsecond of the dedupe retention, and to the last call that room is left
for.
"""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from schemas.ledger import Position, Sum
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from streams.core.mapping.held_reasons import NO_MAPPING
from streams.core.mapping.resolve import Target
from streams.core.metering.close_window import seal
from streams.core.metering.fold import NO_LIMIT_MS, Fold
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes, apply
from tests.support.calls import NOON, Raw, raw, slp
from tests.support.folding import Partition
from tests.support.metered import recorded

POLICY = MeterPolicy()
HOUR_MS, NOON_MS = 3_600_000, NOON // 1000
LEAD_MS = 48 * HOUR_MS
BATCH = "bGl0ZWxsbV9wcm94eTtiYXRjaF8x"
DAY_US = 24 * HOUR_US


def pays(customer: str, _at_us: int, _kind: str, _code: str = "") -> Target:
    return Target("", "", NO_MAPPING) if customer == "stranger" else Target("org", "sub")


def step(
    *records: Raw, ledger: LedgerState | None = None, policy: MeterPolicy = POLICY, latest_ms: int = NO_LIMIT_MS
) -> Changes:
    """Fold one batch, numbered from the position on; windows that wait for nothing are sealed. The ledger must add up."""
    ledger = ledger or LedgerState(Position())
    begins = ledger.position.next
    numbered = [replace(record, offset=begins + n) for n, record in enumerate(records)]
    changes = Fold(policy, "d-t-0-")(ledger, numbered, pays, latest_ms)
    apply(ledger, changes, NOON)
    apply(ledger, seal(ledger.position, changes.ready, {}, policy, "d-t-0-", 0, NOON), NOON)
    verify(ledger)
    return changes


def at_clock(clock_ms: int = NOON_MS) -> LedgerState:
    return LedgerState(Position(clock_ms=clock_ms))


def call(number: int, *, end_us: int, time_ms: int = NOON_MS, **envelope: Any) -> Raw:
    return replace(raw(0, slp(number, at_us=end_us), received_us=time_ms * 1000, **envelope), timestamp=time_ms)


MIXED = [
    (raw(0, slp(1)), "folded", "0.000145"),
    (raw(0, slp(1)), "duplicate", "0.000145"),
    (raw(0, slp(2, cost="0")), "unbilled", "0"),
    (raw(0, slp(3, cost="0.5", cache_hit=True)), "unbilled", "0.5"),
    (raw(0, slp(4, cost="87654")), "rejected", "87654"),
    (call(5, end_us=NOON - 3 * DAY_US), "rejected", "0.000145"),
    (Raw(0, NOON_MS, b"acme", b"{"), "rejected", "0"),
    (recorded("seat-1"), "folded", "0"),
    (recorded("seat-1"), "duplicate", "0"),
    (replace(recorded("seat-2"), key=b"stranger"), "folded", "0"),
    (replace(recorded("seat-3"), key=b"stranger"), "rejected", "0"),
    (raw(0, slp(6, cost="0.25", status="failure")), "folded", "0.25"),
]


@pytest.mark.parametrize("apart", [False, True])
def test_every_record_is_counted_once_with_its_cost(apart: bool) -> None:
    """As folded, duplicate, rejected or unbilled: there is no fifth outcome, and `received` counts all of them."""
    ledger, policy = at_clock(), replace(POLICY, max_held_metered=1)
    records = [record for record, _, _ in MIXED]
    for fetch_batch in [[record] for record in records] if apart else [records]:
        step(*fetch_batch, ledger=ledger, policy=policy)
    counters = ledger.position.counters
    for name in ("folded", "duplicate", "rejected", "unbilled"):
        costs = [Decimal(cost) for _, what, cost in MIXED if what == name]
        assert getattr(counters, name) == Sum(len(costs), sum(costs, Decimal(0))), name
    assert counters.received == Sum(len(MIXED), sum((Decimal(cost) for _, _, cost in MIXED), Decimal(0)))


def test_the_decisions_of_a_step_are_about_its_own_records() -> None:
    changes = step(*[record for record, _, _ in MIXED], ledger=at_clock(), policy=replace(POLICY, max_held_metered=1))
    assert changes.decisions == {
        "billable": 1,
        "duplicate": 2,
        "unpriced": 1,
        "cache_hit": 1,
        "rejected:implausible_cost": 1,
        "rejected:beyond_horizon": 1,
        "rejected:malformed": 1,
        "metered": 2,
        "rejected:too_many_held": 1,
        "failed_with_cost": 1,
    }
    assert {reason: one.calls for reason, one in changes.position.decisions.items()} == {
        "billable": 1,
        "unpriced": 1,
        "cache_hit": 1,
        "metered": 2,
        "failed_with_cost": 1,
    }


def test_held_metered_events_get_the_room_that_is_left() -> None:
    """Two fit, the third is rejected; one whose org has a subscription needs no room."""
    ledger, policy = at_clock(), replace(POLICY, max_held_metered=2)
    held = [replace(recorded(f"held-{number}"), key=b"stranger") for number in range(3)]
    assert step(held[0], recorded("paid-1"), ledger=ledger, policy=policy).decisions == {"metered": 2}
    assert step(recorded("paid-2"), held[1], ledger=ledger, policy=policy).decisions == {"metered": 2}
    assert step(held[2], ledger=ledger, policy=policy).decisions == {"rejected:too_many_held": 1}
    assert step(recorded("paid-3"), ledger=ledger, policy=policy).decisions == {"metered": 1}


@pytest.mark.parametrize(
    ("end_us", "checked_at", "taken"),
    [
        (NOON - 23 * HOUR_US, 0, True),
        (NOON - 23 * HOUR_US - 1000, 0, False),
        (NOON - 30 * DAY_US, NOON - 23 * HOUR_US, True),
        (NOON - 30 * DAY_US, NOON - 23 * HOUR_US - 1, False),
    ],
)
def test_one_hour_less_than_the_dedupe_retention_is_the_oldest_time_that_is_accepted(
    end_us: int, checked_at: int, taken: bool
) -> None:
    changes = step(call(1, end_us=end_us, checked_at=checked_at), ledger=at_clock())
    assert changes.decisions == ({"billable": 1} if taken else {"rejected:beyond_horizon": 1})


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("checked", [True, False])
def test_a_read_of_a_job_is_accepted_for_35_days_less_an_hour(taken: bool, checked: bool) -> None:
    border = NOON - 35 * DAY_US + HOUR_US
    ended = border - (0 if taken else SECOND_US)
    fields = {"id": BATCH, "call_type": "aretrieve_batch"}
    long_ago = border - 900 * DAY_US
    record = raw(
        0,
        slp(1, at_us=long_ago if checked else ended, **fields),
        received_us=NOON,
        checked_at=ended if checked else long_ago,
    )
    assert step(record, ledger=at_clock()).decisions == ({"billable": 1} if taken else {"rejected:beyond_horizon": 1})


def test_a_record_is_believed_up_to_48_hours_ahead_of_the_workers_clock() -> None:
    for ahead_ms, decision in ((LEAD_MS, "billable"), (LEAD_MS + 1, "rejected:beyond_horizon")):
        ahead = call(1, end_us=NOON, time_ms=NOON_MS + ahead_ms)
        assert step(ahead, ledger=at_clock(), latest_ms=NOON_MS).decisions == {decision: 1}


def test_with_a_long_dedupe_retention_a_time_ahead_is_bounded_by_the_hours_that_can_be_distinguished() -> None:
    """248 hours can be distinguished: with 240 remembered, 8 are left for times ahead."""
    policy = replace(POLICY, dedupe_retention_us=240 * HOUR_US)
    for ahead_ms, decision in ((8 * HOUR_MS, "billable"), (8 * HOUR_MS + 1, "rejected:beyond_horizon")):
        ahead = call(1, end_us=NOON, time_ms=NOON_MS + ahead_ms)
        assert step(ahead, ledger=at_clock(), policy=policy, latest_ms=NOON_MS).decisions == {decision: 1}


@pytest.mark.parametrize("ahead_ms", [0, HOUR_MS, LEAD_MS])
def test_identities_are_stored_under_the_hour_of_the_newest_record(ahead_ms: int) -> None:
    ledger = at_clock()
    step(call(1, end_us=NOON, time_ms=NOON_MS + ahead_ms), ledger=ledger, latest_ms=NOON_MS)
    assert list(ledger.seen_blocks) == [(NOON_MS + ahead_ms) // HOUR_MS]


def test_identities_are_stored_under_the_hour_of_an_end_that_was_not_believed() -> None:
    ledger = at_clock(NOON_MS - 30 * HOUR_MS)
    step(call(1, end_us=NOON, time_ms=NOON_MS - 25 * HOUR_MS), ledger=ledger, latest_ms=NOON_MS - 25 * HOUR_MS)
    assert list(ledger.seen_blocks) == [NOON_MS // HOUR_MS]


def test_beside_a_record_that_is_days_ahead_other_calls_are_remembered_by_the_clock() -> None:
    """
    T          the partition's clock, after a night without a call
    T + 20 h   the worker's clock: a record three days ahead, and a call of now, arrive together
    T + 26 h   the call again: its dedupe retention is not over, so it is known
    """
    ledger, now_ms = at_clock(), NOON_MS + 20 * HOUR_MS
    again = call(1, end_us=now_ms * 1000 - SECOND_US, time_ms=now_ms - 1000)
    step(call(9, end_us=NOON, time_ms=now_ms + 72 * HOUR_MS), again, ledger=ledger, latest_ms=now_ms)
    for hours in (25, 26):
        later_ms = NOON_MS + hours * HOUR_MS
        step(call(100 + hours, end_us=later_ms * 1000, time_ms=later_ms), ledger=ledger, latest_ms=later_ms)
    decided = step(replace(again, timestamp=NOON_MS + 26 * HOUR_MS), ledger=ledger, latest_ms=NOON_MS + 26 * HOUR_MS)
    assert decided.decisions == {"duplicate": 1}


def test_a_step_stores_its_identities_under_its_first_offset_and_ends_after_its_last() -> None:
    ledger = at_clock()
    changes = step(raw(0, slp(1)), raw(0, slp(2)), raw(0, slp(3)), ledger=ledger)
    assert (changes.seen_first, changes.position.next) == (0, 3)
    changes = step(raw(0, slp(4)), raw(0, slp(5)), raw(0, slp(1)), ledger=ledger)
    assert (changes.seen_first, changes.position.next) == (3, 6)


def test_a_rejection_has_the_time_of_receipt_and_the_length_of_the_record() -> None:
    part = Partition().take(Raw(0, NOON_MS, b"acme", b"{"), Raw(0, NOON_MS, b"acme", None), raw(0, slp(1, cost="-1")))
    assert [one["at"] for one in part.rejected] == [NOON] * 3
    assert [one.get("length", 0) for one in part.rejected[:2]] == [1, 0]
    assert "sha256" in part.rejected[0] and "call" not in part.rejected[0]
    assert part.rejected[2]["call"]["call"]["response_cost"] == -1


def test_a_metered_event_is_a_window_of_one_event_without_length() -> None:
    (window,) = step(recorded("seat-1"), ledger=at_clock()).ready
    assert (window.count, window.length_us, window.start_us, window.max_end_us) == (1, 0, NOON, NOON)
    assert (window.first, window.last, window.cost) == (0, 0, 0)
    assert step(replace(recorded("seat-1"), key=b"stranger"), ledger=at_clock()).ready == []


def test_a_window_has_its_first_and_last_call_by_time_and_by_offset() -> None:
    ends = [NOON + second * SECOND_US for second in (30, 10, 50, 20)]
    ledger = at_clock()
    step(*[call(n, end_us=end, time_ms=NOON_MS + 60_000) for n, end in enumerate(ends)], ledger=ledger)
    (window,) = ledger.windows.values()
    assert (window.first, window.last, window.count) == (0, 3, 4)
    assert (window.min_end_us, window.max_end_us) == (NOON + 10 * SECOND_US, NOON + 50 * SECOND_US)
    assert (window.start_us, window.length_us) == (NOON, 60 * SECOND_US)
    assert (window.tokens_input, window.tokens_output, window.total_tokens) == (40, 48, 88)
