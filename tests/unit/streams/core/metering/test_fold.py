"""Folding: order, redelivery and splitting change nothing; one identity is counted once."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.ledger import Position, Sum
from schemas.moments import HOUR_US, SECOND_US
from schemas.policy import MeterPolicy
from streams.core.mapping.held_reasons import NO_MAPPING
from streams.core.mapping.resolve import Target
from streams.core.metering.close_window import due_windows, seal
from streams.core.metering.conservation import sum_of_windows
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes, apply
from tests.support.calls import NOON, Raw, raw, slp

POLICY = MeterPolicy()


def subscribed(customer: str, at_us: int, kind: str, _code: str = "") -> Target:
    return Target("", "", NO_MAPPING) if customer == "stranger" else Target(f"org-{customer}", f"sub-{customer}")


def folded(
    records: list[Raw], *, ledger: LedgerState | None = None, policy: MeterPolicy = POLICY, step: int = 1000
) -> LedgerState:
    ledger = ledger or LedgerState(Position())
    fold = Fold(policy, "d-t-0-")
    for start in range(0, len(records), step):
        fetch_batch = [
            replace(record, offset=ledger.position.next + n) for n, record in enumerate(records[start : start + step])
        ]
        apply(ledger, fold(ledger, fetch_batch, subscribed), NOON)
    verify(ledger)
    return ledger


def sums(ledger: LedgerState) -> dict[tuple[str, str, int], tuple[int, int, Decimal]]:
    out: dict[tuple[str, str, int], tuple[int, int, Decimal]] = {}
    for window in ledger.windows.values():
        key = (window.customer_id, window.model, window.start_us)
        count, tokens, cost = out.get(key, (0, 0, Decimal(0)))
        out[key] = (count + window.count, tokens + window.total_tokens, cost + window.cost)
    return out


calls = st.builds(
    lambda number, customer, second, cents, model: raw(
        0,
        slp(number, at_us=NOON + second * SECOND_US, cost=f"{cents}e-7", model=model),
        customer=customer,
        received_us=NOON + 300 * SECOND_US,
    ),
    number=st.integers(0, 60),
    customer=st.sampled_from(["acme", "beta", "stranger"]),
    second=st.integers(0, 200),
    cents=st.integers(1, 10**9),
    model=st.sampled_from(["gpt-4o", "claude"]),
)
#: One call has one content: a number represents it.
batches = st.lists(calls, min_size=1, max_size=40)


def unique(records: list[Raw]) -> list[Raw]:
    seen: dict[bytes, Raw] = {}
    for record in records:
        value = record.value or b""
        seen.setdefault(value[value.index(b'"litellm_call_id"') : value.index(b'"status"')], record)
    return list(seen.values())


@settings(max_examples=60)
@given(records=batches, data=st.data())
def test_order_of_arrival_does_not_change_a_sum(records: list[Raw], data: st.DataObject) -> None:
    records = unique(records)
    shuffled = data.draw(st.permutations(records))
    assert sums(folded(records)) == sums(folded(shuffled))


@settings(max_examples=60)
@given(records=batches, data=st.data())
def test_a_redelivered_call_is_counted_once(records: list[Raw], data: st.DataObject) -> None:
    records = unique(records)
    again = data.draw(st.lists(st.sampled_from(records), max_size=30))
    once, repeated = folded(records), folded([*records, *again], step=7)
    assert sums(once) == sums(repeated)
    assert repeated.position.counters.duplicate.calls == len(again)


@settings(max_examples=40)
@given(records=batches, step=st.integers(1, 11))
def test_the_split_of_records_into_batches_does_not_matter(records: list[Raw], step: int) -> None:
    records = unique(records)
    assert sums(folded(records)) == sums(folded(records, step=step))


@settings(max_examples=40)
@given(records=batches)
def test_windows_of_any_length_sum_to_the_same_whole(records: list[Raw]) -> None:
    records = unique(records)
    minute, hour = folded(records), folded(records, policy=replace(POLICY, window_us=HOUR_US))
    assert (
        sum_of_windows(minute.windows.values())
        == sum_of_windows(hour.windows.values())
        == minute.position.counters.folded
    )


def test_a_thousand_calls_of_one_minute_and_model_become_one_window_and_one_event() -> None:
    """The number of posts to Lago grows with customers, models and minutes, not with calls."""
    records = [raw(0, slp(n, cost="0.25", model="ab"[n % 2])) for n in range(1000)]
    ledger = folded(records)
    assert [(one.model, one.count, one.cost) for one in ledger.windows.values()] == [("a", 500, 125), ("b", 500, 125)]
    due = due_windows(ledger, NOON + HOUR_US, POLICY, 100)
    events = [one.event for one in seal(ledger.position, due, {}, POLICY, "d-t-0-", 0, NOON).sealed]
    assert [(one.properties["requests"], one.precise_total_amount_cents) for one in events] == [("500", "12500")] * 2


def test_cost_is_quantised_once_and_half_even() -> None:
    """LiteLLM's floats turn 9.15e-06 into 9.149999999999999e-06."""
    ledger = folded([raw(0, slp(1, cost="9.149999999999999e-06")), raw(1, slp(2, cost="0.0000000000005"))])
    assert sum_of_windows(ledger.windows.values()).cost == Decimal("0.000009150000")


def test_a_failed_attempt_and_its_success_are_two_calls() -> None:
    failed = slp(1, cost="0.0039", status="failure", id="call-1")
    ledger = folded([raw(0, failed), raw(1, slp(1, cost="0.001"))])
    assert ledger.position.counters.folded == Sum(2, Decimal("0.004900000000"))


def test_unbilled_calls_are_received_remembered_and_not_folded() -> None:
    free = [slp(1, cost="0", cache_hit=True), slp(2, cost="0"), slp(3, cost="0", status="failure")]
    ledger = folded([raw(n, call) for n, call in enumerate([*free, *free])])
    counters = ledger.position.counters
    assert (counters.unbilled.calls, counters.duplicate.calls, counters.folded.calls) == (3, 3, 0)


def test_a_call_beyond_the_dedupe_retention_is_rejected_and_not_folded() -> None:
    """Its identity would be forgotten already; such an old call could repeat a forgotten one."""
    late = NOON - 23 * HOUR_US - 1
    fold = Fold(POLICY, "d-t-0-")
    changes = fold(LedgerState(Position()), [raw(0, slp(1, at_us=late)), raw(1, slp(2, at_us=late + 10))], subscribed)
    assert changes.position.counters.rejected.calls == 1
    assert changes.position.counters.folded.calls == 1
    assert b"beyond_horizon" in changes.rejected[0][1]


def test_an_identity_is_remembered_as_long_as_its_call_can_be_folded() -> None:
    ledger = folded([raw(0, slp(1, at_us=NOON))])
    hours = 22
    later = NOON + hours * HOUR_US + 59 * 60 * SECOND_US
    filler = [raw(0, slp(100 + h, at_us=NOON + h * HOUR_US), received_us=NOON + h * HOUR_US) for h in range(1, hours)]
    folded([*filler, raw(0, slp(1, at_us=NOON), received_us=later)], ledger=ledger, step=1)
    assert ledger.position.counters.duplicate.calls == 1


def test_identities_are_forgotten_hour_by_hour() -> None:
    ledger = folded([raw(0, slp(1))])
    folded([raw(0, slp(2, at_us=NOON + 30 * HOUR_US), received_us=NOON + 30 * HOUR_US)], ledger=ledger)
    assert len(ledger.seen) == 1
    folded([raw(0, slp(3, at_us=NOON + 30 * HOUR_US), received_us=NOON + 30 * HOUR_US)], ledger=ledger)
    assert list(ledger.seen_blocks) == [(NOON + 30 * HOUR_US) // HOUR_US]


def test_a_time_in_the_future_is_replaced_by_the_time_of_receipt() -> None:
    ledger = folded([raw(0, slp(1, at_us=NOON + 3600 * SECOND_US))])
    assert [window.max_end_us for window in ledger.windows.values()] == [NOON]


def test_an_unreadable_record_is_rejected_and_the_others_are_folded() -> None:
    poison = [None, b"", b"\0framed", b"[]", b"{", b'{"v":1}', b"[" * 100_000, raw(0, slp(9, response_cost="x")).value]
    records = [Raw(0, NOON // 1000, b"acme", value) for value in poison]
    ledger = folded([raw(0, slp(1)), *records, raw(0, slp(2))])
    counters = ledger.position.counters
    assert (counters.received.calls, counters.folded.calls, counters.rejected.calls) == (10, 2, 8)


def test_an_invalid_amount_is_rejected_with_its_reason() -> None:
    bad = {"1e308": "absurd_cost", "-0.01": "negative_cost", '"NaN"': "bad_cost", '"Infinity"': "bad_cost"}
    for text, reason in bad.items():
        record = raw(0, slp(1))
        record.value = (record.value or b"").replace(b"0.000145", text.encode())
        changes = Fold(POLICY, "")(LedgerState(Position()), [record], subscribed)
        assert changes.decisions == {f"rejected:{reason}": 1}


def test_per_call_mode_keeps_calls_separate() -> None:
    ledger = folded([raw(0, slp(1)), raw(1, slp(2))], policy=replace(POLICY, window_us=0))
    assert [window.count for window in ledger.windows.values()] == [1, 1]
    assert len({window.identity for window in ledger.windows.values()}) == 2


def test_additional_group_fields_open_separate_windows() -> None:
    policy = replace(POLICY, group_by=("team_id",))
    team = [slp(n, metadata={"user_api_key_team_id": f"t{n % 2}"}) for n in range(4)]
    ledger = folded([raw(n, call) for n, call in enumerate(team)], policy=policy)
    assert sorted(window.group for window in ledger.windows.values()) == [("t0",), ("t1",)]


def test_every_call_that_is_neither_duplicate_nor_rejected_is_enriched() -> None:
    records = [raw(0, slp(1)), raw(1, slp(1)), raw(2, slp(2, cost="0")), raw(3, slp(3, cost="-1"))]
    changes: Changes = Fold(POLICY, "d-t-0-")(LedgerState(Position()), records, subscribed)
    assert [b'"decision":"billable"' in value for _, value in changes.enriched] == [True, False]
    assert b'"part":"d-t-0-0"' in changes.enriched[0][1]


def test_an_old_call_that_was_checked_against_the_usage_log_is_folded() -> None:
    """
    C - 3 days: the call ended     C - 1 h: it was checked     C: it arrives
    """
    clock_ms = (NOON + 72 * HOUR_US) // 1000
    ledger = LedgerState(Position(clock_ms=clock_ms))
    old = raw(0, slp(1), checked_at=NOON + 71 * HOUR_US)
    folded([replace(old, timestamp=clock_ms)], ledger=ledger)
    assert ledger.position.counters.folded.calls == 1


def test_a_check_older_than_the_dedupe_retention_is_not_accepted() -> None:
    """A released call that is replayed a week later may have been forgotten: the usage log must be asked again."""
    clock_ms = (NOON + 172 * HOUR_US) // 1000
    ledger = LedgerState(Position(clock_ms=clock_ms))
    old = raw(0, slp(1), checked_at=NOON + 71 * HOUR_US)
    folded([replace(old, timestamp=clock_ms)], ledger=ledger)
    assert ledger.position.counters.rejected.calls == 1


def test_a_checked_call_is_still_counted_once() -> None:
    clock_ms = (NOON + 72 * HOUR_US) // 1000
    ledger = LedgerState(Position(clock_ms=clock_ms))
    old = replace(raw(0, slp(1), checked_at=NOON + 71 * HOUR_US), timestamp=clock_ms)
    folded([old, old], ledger=ledger)
    assert (ledger.position.counters.folded.calls, ledger.position.counters.duplicate.calls) == (1, 1)


def backfilled(at_us: int, **fields: object) -> Raw:
    """Call 1 as read from LiteLLM's database."""
    record = raw(0, slp(1, at_us=at_us, **fields), checked_at=NOON)
    record.value = (record.value or b"").replace(b'"source": "webhook"', b'"source": "backfill"')
    return record


def duplicates(*records: Raw) -> int:
    return folded(list(records), step=1).position.counters.duplicate.calls


@given(apart_ms=st.integers(-2, 2), backfill_first=st.booleans(), status=st.sampled_from(["success", "failure"]))
def test_a_backfilled_call_and_its_webhook_are_one_call_in_either_order(
    apart_ms: int, backfill_first: bool, status: str
) -> None:
    """The database rounds the start to milliseconds, and its status of an interrupted stream differs from the
    callback's.
    """
    there = backfilled(NOON + apart_ms * 1000)
    sent = raw(0, slp(1, status=status))
    assert duplicates(*((there, sent) if backfill_first else (sent, there))) == 1


def test_calls_further_apart_are_two_calls() -> None:
    """An id that a provider uses twice must not lose a call."""
    assert duplicates(backfilled(NOON + 3000), raw(0, slp(1))) == 0


def test_webhook_calls_are_duplicates_only_if_they_are_exactly_equal() -> None:
    assert duplicates(raw(0, slp(1)), raw(0, slp(1, at_us=NOON + 1000))) == 0
