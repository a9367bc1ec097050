"""The meaning of Lago's answers: the table, as rules."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.delivery.backoff import RetryPolicy, retry_delay, tier_of
from streams.core.delivery.batches import MAX_BODY_BYTES, Item, body_of, pack, rounds
from streams.core.delivery.retry_after import requested_wait_s
from streams.core.delivery.verdicts import (
    Delivered,
    ErrorKind,
    EventError,
    HttpResponse,
    RefusedEvents,
    RetryLater,
    SplitBatch,
    batches_are_whole,
    lookup_failed,
    same_event,
    unanswered,
    verdict_on_batch,
)
from tests.support.scripted_lago import EXISTS, event, item


def answer(status: int, body: Any = None, headers: dict[str, str] | None = None) -> HttpResponse:
    encoded = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return HttpResponse(status, headers or {}, encoded)


def refused(details: Any, code: str = "validation_errors") -> HttpResponse:
    return answer(422, {"status": 422, "error": "Unprocessable Entity", "code": code, "error_details": details})


def lagos(status: int) -> HttpResponse:
    """Lago's shortest refusal."""
    return answer(status, {"status": status, "error": "Unprocessable Entity"})


def echo(count: int) -> dict[str, Any]:
    return {"events": [{"lago_id": None, "transaction_id": str(n)} for n in range(count)]}


@given(st.integers(1, 100))
def test_an_answer_that_repeats_every_event_is_a_delivery(sent: int) -> None:
    assert verdict_on_batch(answer(200, echo(sent)), sent) == Delivered()


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>welcome</html>", b"\xff\xfe", b"null", {}, {"events": None}, {"events": {}}, echo(2), echo(4)],
    ids=repr,
)
def test_a_success_that_does_not_repeat_every_event_is_an_unknown_outcome(body: Any) -> None:
    verdict = verdict_on_batch(answer(200, body), 3)
    assert isinstance(verdict, RetryLater)
    assert (verdict.reason, verdict.unknown, verdict.isolates) == ("bad_answer", True, True)


def named(*ids: object) -> HttpResponse:
    return answer(200, {"events": [{"transaction_id": one} for one in ids]})


@pytest.mark.parametrize("result", [named("a", "b"), named("b", "a"), named("a", None), named(7, "b"), named("a", "a")])
def test_an_answer_with_events_of_the_batch_is_a_delivery(result: HttpResponse) -> None:
    assert verdict_on_batch(result, 2, ("a", "b")) == Delivered()


@pytest.mark.parametrize("result", [named("a", "c"), named("", "b"), named("x", "y")])
def test_an_answer_with_other_events_is_not_a_delivery(result: HttpResponse) -> None:
    """Earlier an event was `completed` that a mock server had answered with its example, or a proxy with the answer to
    another request.
    """
    verdict = verdict_on_batch(result, 2, ("a", "b"))
    assert isinstance(verdict, RetryLater)
    assert (verdict.reason, verdict.unknown, verdict.opens, verdict.alone) == ("bad_answer", True, True, False)


@pytest.mark.parametrize("status", [301, 401, 402, 403, 404, 405, 408, 409, 415, 418, 429, 500, 502, 503, 504, 520])
def test_an_error_that_an_operator_can_repair_is_held_and_never_a_dead_letter(status: int) -> None:
    for sent in (1, 100):
        verdict = verdict_on_batch(answer(status, b"<html>"), sent)
        assert isinstance(verdict, RetryLater)
        assert verdict.reason == f"http_{status}"


def test_only_answers_that_may_hide_a_stored_batch_are_unknown_outcomes() -> None:
    unknown = {status for status in range(300, 600) if getattr(verdict_on_batch(lagos(status), 2), "unknown", False)}
    assert unknown == {*range(300, 400), 408, *range(500, 600)}


def test_a_refused_key_and_a_rate_limit_open_the_breaker_at_once() -> None:
    assert {status for status in range(300, 600) if getattr(verdict_on_batch(lagos(status), 2), "opens", False)} == {
        401,
        403,
        429,
    }


#: What a proxy, a network's login, another server and other frameworks answer where Lago should.
NOT_LAGOS = {
    "nothing": None,
    "a page": b"<html><body>400 The plain HTTP request was sent to HTTPS port</body></html>",
    "no text": b"\xff\xfe",
    "a list": [],
    "a number": 4,
    "deep": b"[" * 100_000,
    "a message": {"message": "Bad Request"},
    "another status": {
        "status": 500,
        "error": "Unprocessable Entity",
        "code": "validation_errors",
        "error_details": {},
    },
    "a status as text": {"status": "4xx", "error": "x", "code": "validation_errors"},
    "a code and a message": {"status": 0, "code": "INVALID", "message": "no"},
    "a path": {"status": 0, "error": "Bad Request", "path": "/api/v1/events/batch", "timestamp": 1},
    "a problem": {"status": 0, "title": "Bad Request", "type": "about:blank"},
    "an error as an object": {"error": {"code": "invalid_json"}},
}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("body", NOT_LAGOS.values(), ids=NOT_LAGOS)
def test_an_answer_from_another_server_than_lago_refuses_no_event(body: Any, status: int) -> None:
    """An HTTPS port that was asked in plain HTTP had moved a whole topic into the dead letters in 1.3 s."""
    if isinstance(body, dict) and body.get("status") == 0:
        body = {**body, "status": status}
    for sent in (1, 100):
        verdict = verdict_on_batch(answer(status, body), sent)
        assert isinstance(verdict, RetryLater)
        assert (verdict.reason, verdict.opens, verdict.unknown, verdict.alone) == ("not_lago", True, True, False)


def test_a_batch_that_a_proxy_calls_too_large_is_halved_and_never_a_dead_letter() -> None:
    assert verdict_on_batch(answer(413, b"<html>413</html>"), 2) == SplitBatch()
    verdict = verdict_on_batch(answer(413, b"<html>413</html>"), 1)
    assert isinstance(verdict, RetryLater)
    assert (verdict.reason, verdict.isolates, verdict.alone) == ("too_large", True, False)


def test_an_error_that_no_batch_can_cause_never_splits_the_batch() -> None:
    holds = {
        status: verdict
        for status in range(300, 600)
        if isinstance(verdict := verdict_on_batch(lagos(status), 2), RetryLater)
    }
    assert {status for status, hold in holds.items() if not hold.isolates} == {401, 402, 404, 405, 415, 429}


def test_if_no_connection_was_made_nothing_was_stored() -> None:
    assert unanswered("connect") == RetryLater("connect", unknown=False, opens=True, isolates=False)
    for reason in ("timeout", "no_answer"):
        assert unanswered(reason) == RetryLater(reason, unknown=True, opens=False, isolates=True)


@pytest.mark.parametrize(("status", "reason"), [(400, "bad_request"), (413, "too_large")])
def test_a_refused_body_is_split_until_one_bad_event_is_left(status: int, reason: str) -> None:
    assert verdict_on_batch(lagos(status), 2) == SplitBatch()
    assert verdict_on_batch(lagos(status), 1) == RefusedEvents(
        {0: EventError(ErrorKind.DEAD, reason, f"HTTP {status}")}
    )


@pytest.mark.parametrize(
    "refusal",
    [
        refused({"events": ["too_many_events"]}),
        refused({}),
        refused(None),
        refused("something else"),
        refused({"3": EXISTS}),  # no such index in a batch of 3
        refused({"-1": EXISTS}),
        refused({"0": EXISTS, "base": ["odd"]}),
        refused({"9" * 5000: EXISTS}),
    ],
    ids=range(8),
)
def test_a_refusal_without_an_index_map_is_split_and_the_bad_event_is_refused(refusal: HttpResponse) -> None:
    assert verdict_on_batch(refusal, 3) == SplitBatch()
    if b'"0"' not in refusal.body:
        verdict = verdict_on_batch(refusal, 1)
        assert isinstance(verdict, RefusedEvents)
        assert (verdict.marks[0].fate, verdict.marks[0].reason) == (ErrorKind.DEAD, "lago_refused")


@pytest.mark.parametrize(
    ("error", "fate", "reason"),
    [
        (EXISTS, ErrorKind.EXISTS, "already_exists"),
        ("expression_evaluation_failed: Variable: b not found", ErrorKind.HEALS, "expression_evaluation_failed"),
        ("lock_acquisition_failed", ErrorKind.HEALS, "lock_acquisition_failed"),
        ({"base": ["lock_acquisition_failed"]}, ErrorKind.HEALS, "lock_acquisition_failed"),
        ({"timestamp": ["invalid_format"]}, ErrorKind.DEAD, "invalid_timestamp"),
        ({"code": ["value_is_mandatory"]}, ErrorKind.DEAD, "missing_code"),
        ({"transaction_id": ["value_is_mandatory"]}, ErrorKind.DEAD, "missing_transaction_id"),
        ({"transaction_id": ["value_already_exist", "other"]}, ErrorKind.DEAD, "lago_refused"),
        ({"code": ["odd"], "timestamp": ["invalid_format"]}, ErrorKind.DEAD, "invalid_timestamp"),
        ("something else", ErrorKind.DEAD, "lago_refused"),
        (None, ErrorKind.DEAD, "lago_refused"),
        ([1], ErrorKind.DEAD, "lago_refused"),
        ({"code": "not a list"}, ErrorKind.DEAD, "lago_refused"),
    ],
)
def test_each_index_of_a_map_gives_the_reason_of_its_own_event(error: Any, fate: ErrorKind, reason: str) -> None:
    verdict = verdict_on_batch(refused({"2": error, "0": EXISTS}), 3)
    assert isinstance(verdict, RefusedEvents)
    assert set(verdict.marks) == {0, 2}
    assert (verdict.marks[2].fate, verdict.marks[2].reason) == (fate, reason)
    assert len(verdict_on_batch(refused({"0": "x" * 9000}), 1).marks[0].detail) == 500  # type: ignore[union-attr]


def test_a_lock_on_the_whole_batch_is_waited_for() -> None:
    verdict = verdict_on_batch(refused(None, code="lock_acquisition_failed"), 3)
    assert verdict == RetryLater("lock_acquisition_failed", "HTTP 422", isolates=True)


@given(st.integers(100, 599), st.binary(max_size=40), st.integers(1, 100))
def test_every_answer_has_a_verdict_and_only_one_that_repeats_every_event_is_a_delivery(
    status: int, body: bytes, sent: int
) -> None:
    assert verdict_on_batch(HttpResponse(status, {}, body), sent) != Delivered()


NOON = 1_792_584_000.0  # Wed, 21 Oct 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"X-RateLimit-Reset": "12"}, 12.0),
        ({"x-ratelimit-reset": "1.5", "Retry-After": "50"}, 1.5),
        ({"RETRY-AFTER": "7"}, 7.0),
        ({"X-RateLimit-Reset": "soon", "Retry-After": "7"}, 7.0),
        ({"X-RateLimit-Reset": "0", "Retry-After": "7"}, 7.0),
        ({"X-RateLimit-Reset": "1741219251"}, 60.0),  # an epoch, not seconds until the reset
        ({"Retry-After": "inf"}, 60.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "Wed, 21 Oct 2026 12:00:20 GMT"}, 20.0),
        ({"Retry-After": "Wednesday, 21-Oct-26 12:00:20 GMT"}, 20.0),
        ({"Retry-After": "Wed Oct 21 12:00:20 2026"}, 20.0),
        ({"Retry-After": "Wed, 21 Oct 2026 13:30:20 +0130"}, 20.0),
        ({"Retry-After": "Wed, 21 Oct 2026 12:00:20 GMT", "date": "Wed, 21 Oct 2026 12:00:15 GMT"}, 5.0),
        ({"Retry-After": "Wed, 21 Oct 2026 12:00:20 GMT", "Date": "today"}, 20.0),
        ({"Retry-After": "Wed, 21 Oct 2026 11:59:59 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 2126 12:00:00 GMT"}, 60.0),
        ({"Retry-After": "Wed, 99 Oct 2026 12:00:20 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 99999999999999999999 12:00:20 GMT"}, None),
        ({"Retry-After": "later"}, None),
        ({}, None),
    ],
)
def test_a_wait_that_lago_asks_for_is_respected_up_to_a_minute(headers: dict[str, str], wait_s: float | None) -> None:
    assert requested_wait_s(429, headers, NOON) == wait_s
    refused = HttpResponse(429, headers, b"", NOON)
    assert verdict_on_batch(refused, 1) == RetryLater("http_429", "HTTP 429", opens=True, wait_s=wait_s)


def test_the_rate_limit_reset_in_every_answer_is_no_wait_after_a_failure() -> None:
    """Otherwise Lago would be asked every second in an outage: the backoff would never grow."""
    assert requested_wait_s(500, {"X-RateLimit-Reset": "1"}) is None
    assert requested_wait_s(503, {"X-RateLimit-Reset": "1", "Retry-After": "20"}) == 20


@pytest.mark.parametrize("status", ["http_401", "http_403", "http_429", "connect"])
def test_a_refused_lookup_stops_all_posts_and_no_batch_is_at_fault(status: str) -> None:
    assert lookup_failed(status, "why") == RetryLater(status, "why", opens=True)


@pytest.mark.parametrize("status", ["http_402", "http_404", "http_405", "http_415"])
def test_a_lookup_with_a_foreign_answer_puts_no_batch_at_fault(status: str) -> None:
    assert lookup_failed(status) == RetryLater(status)


@pytest.mark.parametrize("status", ["http_500", "http_400", "timeout", "no_answer", "bad_answer"])
def test_a_failed_lookup_may_be_caused_by_its_event(status: str) -> None:
    assert lookup_failed(status) == RetryLater(status, isolates=True)


@pytest.mark.parametrize(
    ("version", "whole"),
    [
        ("v1.51.0", True),
        ("v1.39.0", True),
        ("1.39.2", True),
        ("v2.0.0", True),
        ("v1.38.9", False),
        ("v1.9.0", False),
        ("v0.99.1", False),
        ("production", True),
        ("2026-08-21", True),
        ("", True),
    ],
)
def test_only_a_lago_before_1_39_stores_a_part_of_a_refused_batch(version: str, *, whole: bool) -> None:
    assert batches_are_whole(version) is whole


@pytest.mark.parametrize(
    ("stored", "same"),
    [
        (event("t"), True),
        (event("t", cents="1.250000000000000"), True),
        (event("t", timestamp="2025-03-06T00:00:51.590Z"), True),
        (event("t", timestamp="2025-03-06T00:00:51.590400Z"), True),
        (event("t", timestamp="2025-03-06T00:00:51.591Z"), False),
        (event("t", cents="1.25000001"), False),
        (event("t", cents="what"), False),
        (event("t", timestamp="what"), False),
    ],
)
def test_a_stored_event_is_ours_if_time_and_amount_are_equal_in_any_notation(stored: Any, *, same: bool) -> None:
    assert same_event(stored, item("t").value) is same


@pytest.mark.parametrize(("cents", "same"), [("0", True), ("", True), ("0.000", True), ("1", False)])
def test_an_event_without_an_amount_has_the_amount_0(cents: str, *, same: bool) -> None:
    """Older releases post events that others measured with an empty amount."""
    sent = msgspec.json.encode({**msgspec.json.decode(item("t").value), "precise_total_amount_cents": ""})
    assert same_event(event("t", cents=cents), sent) is same


def test_a_stored_event_with_another_code_or_subscription_is_not_ours() -> None:
    for field in ("code", "external_subscription_id"):
        other = event("t")
        setattr(other, field, "other")
        assert not same_event(other, item("t").value)
    assert not same_event(event("t"), b"no json")


@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_no_transaction_id_occurs_twice_in_a_round_and_order_is_kept(ids: list[str]) -> None:
    found = rounds(ids)
    assert sorted(position for positions in found for position in positions) == list(range(len(ids)))
    for positions in found:
        assert positions == sorted(positions)
        assert len({ids[position] for position in positions}) == len(positions)
    for one in set(ids):
        appearances = [n for n, positions in enumerate(found) for p in positions if ids[p] == one]
        assert appearances == list(range(len(appearances)))


@given(st.lists(st.sampled_from([10, 400_000, 999_980, 2_000_000]), max_size=12), st.integers(1, 4))
def test_a_batch_has_bounded_events_and_bytes_unless_it_is_one_event(sizes: list[int], batch_size: int) -> None:
    items = [Item(str(n), bytes(size), resent=False) for n, size in enumerate(sizes)]
    packed = pack(range(len(items)), items, batch_size)
    assert [position for batch in packed for position in batch] == list(range(len(items)))
    for batch in packed:
        assert 1 <= len(batch) <= batch_size
        body = body_of(items[position].value for position in batch)
        assert len(body) <= MAX_BODY_BYTES or len(batch) == 1


def test_events_are_joined_without_changing_a_byte() -> None:
    assert body_of([b'{"a" : 1.0}', b'{"b":2}']) == b'{"events":[{"a" : 1.0},{"b":2}]}'


@given(st.integers(-3, 40), st.floats(0, 1, exclude_max=True))
def test_a_retry_waits_its_delay_within_ten_percent_and_never_over_an_hour(attempt: int, jitter: float) -> None:
    """So 60, 120 and 240 s can be distinguished in a log, and events that failed together do not return together."""
    tier = tier_of(attempt)
    assert 1 <= tier <= 8
    middle = 60.0 * 2 ** (tier - 1)
    assert min(middle * 0.9, 3600) <= retry_delay(attempt, jitter=jitter) <= min(middle * 1.1, 3600)
    assert retry_delay(attempt, jitter=0.5) == pytest.approx(min(middle, 3600))


def test_the_first_waits_are_one_two_and_four_minutes() -> None:
    assert [retry_delay(attempt, jitter=0.5) for attempt in (1, 2, 3)] == [60, 120, 240]


@given(st.integers(0, 5000), st.floats(0, 1, exclude_max=True))
def test_a_post_s_backoff_doubles_up_to_its_cap_with_full_jitter(attempt: int, chance: float) -> None:
    wait_s = RetryPolicy(random=lambda: chance).wait_s(attempt)
    assert wait_s == pytest.approx(chance * min(30.0, 0.5 * 2.0 ** min(max(attempt, 1) - 1, 30)))


@pytest.mark.parametrize("body", [b'{"\xff":1}', b'{"events":["\xff"]}', b'{"events":[' + b"[" * 200_000, b"\xff", b""])
@pytest.mark.parametrize("status", [200, 400, 422, 503])
def test_an_answer_that_is_no_json_of_lagos_holds_the_batch_for_any_bytes(status: int, body: bytes) -> None:
    """An invalid byte raises UnicodeDecodeError and deep nesting RecursionError: either would have ended the sink."""
    assert isinstance(verdict_on_batch(HttpResponse(status, {}, body), 3), RetryLater)
