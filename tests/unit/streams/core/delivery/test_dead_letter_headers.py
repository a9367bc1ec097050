"""The headers of retries and dead letters: what an operator, a tool and the next attempt read from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.delivery.batches import EventOutcome
from streams.core.delivery.dead_letter_headers import (
    CONNECT,
    DeliveryHistory,
    RecordOrigin,
    dead,
    delivery_history_of,
    maybe_sent_of,
    waiting,
)

PLACE = RecordOrigin("billing.lago.events", 3, 41, "prod-sink", "streams.agents.sink.DeliveryWork")
LATER = RecordOrigin("billing.lago.retry", 0, 7, "prod-retry", "streams.agents.sink.DeliveryWork")
ORIGINAL = [("manifest", b"{}"), ("seal_seq", b"12"), ("raw_partition", b"3"), ("theirs", b"\xff"), ("theirs", b"2")]
REFUSED = EventOutcome("dead", "lago_refused", "code: odd", 1)
BROKEN = EventOutcome("retry", "http_500", "HTTP 500", 3, maybe_sent=True)


def test_a_first_failure_keeps_the_headers_and_adds_the_reason_and_the_origin() -> None:
    headers = waiting(ORIGINAL, PLACE, BROKEN, 1, 1_800_000_000_000)
    assert headers[: len(ORIGINAL)] == ORIGINAL
    assert dict(headers[len(ORIGINAL) :]) == {
        "first_error": b"http_500: HTTP 500",
        "last_error": b"http_500: HTTP 500",
        "reason": b"http_500",
        "origin_topic": b"billing.lago.events",
        "origin_partition": b"3",
        "origin_offset": b"41",
        "maybe_sent": b"1",
        "attempt": b"1",
        "not_before": b"1800000000000",
    }
    assert delivery_history_of(headers) == DeliveryHistory(1, 1_800_000_000_000, maybe_sent=True)


def test_an_event_that_must_be_compared_stays_one_in_the_retry_topic_and_as_a_dead_letter() -> None:
    known = EventOutcome("retry", "timeout", "", 1, maybe_sent=True, compare=True)
    for headers in (waiting(ORIGINAL, PLACE, known, 1, 5), dead(ORIGINAL, PLACE, known, 4)):
        assert dict(headers)["maybe_sent"] == b"2"
        history = delivery_history_of(headers)
        assert (history.maybe_sent, history.compare, maybe_sent_of(headers)) == (True, True, True)


def test_a_dead_letter_has_its_first_and_last_error_and_where_it_first_failed() -> None:
    headers = dead(waiting(ORIGINAL, PLACE, BROKEN, 1, 5), LATER, REFUSED, 2)
    result = dict(headers)
    assert headers[: len(ORIGINAL)] == ORIGINAL
    assert (result["first_error"], result["last_error"]) == (b"http_500: HTTP 500", b"lago_refused: code: odd")
    assert (result["reason"], result["attempts"], result["maybe_sent"]) == (b"lago_refused", b"2", b"0")
    assert (result["origin_topic"], result["origin_partition"], result["origin_offset"]) == (
        b"billing.lago.events",
        b"3",
        b"41",
    )
    assert not {"attempt", "not_before"} & result.keys()


def test_a_tool_for_kafka_connects_dead_letters_can_list_ours() -> None:
    result = {name.removeprefix(CONNECT): value for name, value in dead(ORIGINAL, PLACE, REFUSED, 1)}
    assert {name: result[name] for name in result if name not in dict(ORIGINAL)}.items() >= {
        "topic": b"billing.lago.events",
        "partition": b"3",
        "offset": b"41",
        "connector.name": b"prod-sink",
        "task.id": b"3",
        "stage": b"TASK_PUT",
        "class.name": b"streams.agents.sink.DeliveryWork",
        "exception.class.name": b"schemas.errors.Rejected",
        "exception.message": b"lago_refused: code: odd",
    }.items()
    exhausted = dict(dead(ORIGINAL, PLACE, BROKEN, 4))
    assert exhausted[CONNECT + "exception.class.name"] == b"schemas.errors.Unavailable"
    unread = dict(dead(ORIGINAL, PLACE, EventOutcome("dead", "malformed", "the record is no event", 0), 1))
    assert unread[CONNECT + "stage"] == b"VALUE_CONVERTER"


def test_a_requeued_event_that_fails_again_has_every_header_once() -> None:
    first = dead(ORIGINAL, PLACE, BROKEN, 4)
    requeued = [*first, ("requeued", b"1"), ("attempt", b"0"), ("not_before", b"9")]
    assert delivery_history_of(requeued) == DeliveryHistory(0, 9, maybe_sent=True, requeued=1, compare=True)
    for headers in (waiting(requeued, LATER, BROKEN, 1, 10), dead(requeued, LATER, REFUSED, 1)):
        names = [name for name, _ in headers if name != "theirs"]
        assert len(names) == len(set(names))
        assert dict(headers)["requeued"] == b"1"
        assert dict(headers)["origin_topic"] == b"billing.lago.events"
    assert not [name for name, _ in waiting(requeued, LATER, BROKEN, 1, 10) if name.startswith(CONNECT)]


@given(st.lists(st.tuples(st.sampled_from(["attempt", "not_before", "maybe_sent", "requeued"]), st.binary())))
def test_headers_of_other_programs_never_stop_the_partition_task(headers: list[tuple[str, bytes]]) -> None:
    history = delivery_history_of(headers)
    assert history.attempt >= 0
    assert 0 <= history.not_before_ms < 10**18
    dead(headers, PLACE, REFUSED, history.attempt + 1)


@pytest.mark.parametrize("value", [None, b"", b"-1", b"1e3", b"\xff", "１".encode(), b"9" * 19])
def test_a_malformed_number_counts_as_absent(value: bytes | None) -> None:
    assert delivery_history_of([("attempt", value)]) == DeliveryHistory()


@pytest.mark.parametrize(
    ("headers", "maybe_sent"),
    [
        (dead(ORIGINAL, PLACE, BROKEN, 4), True),
        (dead(ORIGINAL, PLACE, REFUSED, 1), False),
        (ORIGINAL, None),
        ([("maybe_sent", None)], None),
        ([("maybe_sent", b"yes")], None),
    ],
)
def test_a_dead_letter_without_the_fact_does_not_say_that_lago_has_nothing(
    headers: list[tuple[str, bytes | None]], maybe_sent: bool | None
) -> None:
    assert maybe_sent_of(headers) is maybe_sent


def test_of_two_headers_with_one_name_the_last_counts() -> None:
    assert delivery_history_of([("attempt", b"3"), ("attempt", b"0")]).attempt == 0


def test_a_long_error_is_truncated_between_two_characters() -> None:
    result = dict(dead([], PLACE, EventOutcome("dead", "lago_refused", "ü" * 400, 1), 1))
    assert len(result["last_error"]) <= 500
    assert result["last_error"].decode().endswith("ü")
