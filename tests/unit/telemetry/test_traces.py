"""The spans of the roles: their parents, their links, and their bounds."""

import asyncio
import json
from dataclasses import asdict
from io import StringIO
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog
from opentelemetry.trace import SpanContext, TraceFlags

from connectors.telemetry.logs import add_trace_ids, configure_logging
from connectors.telemetry.traces import attributes as names
from connectors.telemetry.traces.context import current_ids, traceparent_of
from connectors.telemetry.traces.delivery import DeliverySpans, tell_lago
from connectors.telemetry.traces.links import MOST_LINKS, MOST_WINDOWS, TracedCalls
from connectors.telemetry.traces.meter import MeterSpans
from connectors.telemetry.traces.provider import make_provider
from connectors.telemetry.tracing import GuardedTraces, Tracing
from schemas.errors import Unavailable
from schemas.records import LagoEvent
from schemas.topics import TopicNames
from schemas.trace_context import TRACEPARENT
from streams.core.delivery.batches import EventOutcome
from streams.core.delivery.verdicts import HttpResponse
from tests.support.calls import NOON, raw, slp
from tests.support.meter_line import Line
from tests.support.spans import ALL, Seen, parent

TOPICS = TopicNames.with_prefix("")
DELIVERED = EventOutcome("delivered", "accepted", "", 1)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def traced(line: Line, *parents: bytes, second: int = 0) -> None:
    """Fold one call for each parent; `b""` means that it is not traced."""
    records: list[Any] = []
    for text in parents:
        record = raw(
            line.ledger.position.next + len(records),
            slp(line.number, at_us=NOON + second * 10**6, cost="1"),
            customer="ada",
        )
        headers = ((TRACEPARENT, text),) if text else ()
        records.append(SimpleNamespace(**asdict(record), headers=headers, topic="raw", partition=0))
        line.number += 1
    asyncio.run(line.work.process(records))


def line_with(spans: MeterSpans) -> Line:
    line = Line(None)
    line.work._traces = spans
    return line


def test_an_events_span_is_the_child_of_its_first_traced_call_and_links_to_all(seen: Seen) -> None:
    line = line_with(MeterSpans(seen.tracer, TOPICS, "g"))
    line.map("ada")
    traced(line, b"", parent(1), b"", parent(2))
    line.now_us += 10**9
    line.punctuate()
    calls = seen.named("process raw")
    assert [call.parent and call.parent.trace_id for call in calls] == [1, 2]
    [event] = seen.named(f"send {TOPICS.events}")
    assert event.parent == calls[0].context
    assert [link.context for link in event.links] == [call.context for call in calls]
    assert event.attributes is not None
    assert event.attributes[names.CALLS] == 4
    assert (
        event.attributes[names.TRANSACTION_ID]
        == "meterbridge-t-0-0"
        == (calls[1].attributes or {})[names.TRANSACTION_ID]
    )


def test_a_window_without_a_traced_call_has_no_span(seen: Seen) -> None:
    spans = MeterSpans(seen.tracer, TOPICS, "g")
    line = line_with(spans)
    line.map("ada")
    traced(line, b"", b"00-zz", parent(1)[:-1] + b"0")
    line.now_us += 10**9
    line.punctuate()
    assert len(line.events) == 1
    assert list(seen.spans) == []


def test_an_event_that_releases_held_calls_links_to_them(seen: Seen) -> None:
    line = line_with(MeterSpans(seen.tracer, TOPICS, "g"))
    traced(line, parent(1))
    line.call(("ada", 5))
    traced(line, parent(2), second=9)
    assert len(line.ledger.windows) == 3
    assert {(call.attributes or {})[names.HELD] for call in seen.named("process raw")} == {"no_mapping"}
    line.map("ada")
    line.punctuate()
    line.now_us += 10**9
    line.punctuate()
    [event] = seen.named(f"send {TOPICS.events}")
    assert [link.context.trace_id for link in event.links] == [1, 2]


def test_an_uncommitted_step_exports_nothing(seen: Seen) -> None:
    spans = MeterSpans(seen.tracer, TOPICS, "g")
    record = SimpleNamespace(**asdict(raw(0, slp(0))), headers=((TRACEPARENT, parent(1)),), topic="raw", partition=0)
    line = Line(None)
    committed = spans.step([record], line.work._step([record]), 0)
    assert list(seen.spans) == []
    committed()
    assert len(seen.spans) == 1


def test_links_and_remembered_windows_have_bounds() -> None:
    calls = TracedCalls()
    contexts = [SpanContext(1, number + 1, True, TraceFlags(1)) for number in range(MOST_LINKS + 5)]
    for context in contexts:
        calls.add("w", context)
    assert len(calls._calls["w"]) == MOST_LINKS
    assert calls.take(["w", "other"]) == contexts[:MOST_LINKS]
    assert calls.take(["w"]) == []
    for number in range(MOST_WINDOWS + 5):
        calls.add(str(number), contexts[0])
    assert len(calls) == MOST_WINDOWS
    assert calls.take(["0"]) == []


def test_a_post_is_the_child_of_its_first_traced_event_and_sends_its_context_to_lago(seen: Seen) -> None:
    lago = Answering(HttpResponse(200, {}, b""))
    spans = DeliverySpans(seen.tracer, "g")
    client = spans.over(lago, "https://user:secret@lago.example/api")
    records = [_record("e-1", b""), _record("e-2", parent(2)), _record("e-3", parent(3))]
    settled = spans.delivering(records)
    asyncio.run(client.post_batch(b'{"events":[%b]}' % b",".join(record.value for record in records)))
    settled([DELIVERED] * 3)
    [post] = seen.named("POST /api/v1/events/batch")
    taken = seen.named("process events")
    assert post.parent == taken[0].context
    assert [link.context for link in post.links] == [one.context for one in taken]
    assert lago.received == [traceparent_of(post.context)]
    assert post.attributes is not None
    assert post.attributes[names.SERVER_ADDRESS] == "lago.example"
    assert "secret" not in str([span.to_json() for span in seen.spans])
    assert [(one.attributes or {})[names.OUTCOME] for one in taken] == ["delivered"] * 2
    assert not spans.under_way


def test_a_failed_post_has_the_reason_without_text(seen: Seen) -> None:
    spans = DeliverySpans(seen.tracer, "g")
    client = spans.over(Answering(Unavailable("timeout", "c4n4ry")), "http://lago")
    settled = spans.delivering([_record("e-1", parent(1))])
    with pytest.raises(Unavailable):
        asyncio.run(client.post_batch(_record("e-1", b"").value.join([b'{"events":[', b"]}"])))
    settled([])
    [post] = seen.named("POST /api/v1/events/batch")
    assert (post.attributes or {})[names.ERROR_TYPE] == "timeout"
    assert "c4n4ry" not in post.to_json()
    assert (seen.named("process events")[0].attributes or {})[names.OUTCOME] == "given_back"


def test_a_post_without_a_traced_event_has_no_span_and_sends_no_context_to_lago(seen: Seen) -> None:
    lago = Answering(HttpResponse(200, {}, b""))
    spans = DeliverySpans(seen.tracer, "g")
    client = spans.over(lago, "http://lago")
    asyncio.run(client.post_batch(b'{"events":[]}'))
    spans.delivering([_record("e-1", parent(1))])
    asyncio.run(client.post_batch(b'{"events":[{"transaction_id":"e-2"}]}'))
    assert lago.received == ["", ""]
    assert list(seen.spans) == []


class Answering:
    """A Lago that gives the same answer to every post, and keeps the `traceparent` that httpx would send."""

    def __init__(self, answer: HttpResponse | Unavailable) -> None:
        self._answer = answer
        self.received: list[str] = []

    async def post_batch(self, body: bytes) -> HttpResponse:
        request = httpx.Request("POST", "http://lago")
        await tell_lago(request)
        self.received.append(request.headers.get(TRACEPARENT, ""))
        if isinstance(self._answer, Unavailable):
            raise self._answer
        return self._answer

    async def get_event(self, transaction_id: str) -> LagoEvent | None:
        return None

    async def healthy(self) -> bool:
        return True


def _record(transaction_id: str, traceparent: bytes) -> Any:
    headers = ((TRACEPARENT, traceparent),) if traceparent else ()
    value = json.dumps({"transaction_id": transaction_id}).encode()
    return SimpleNamespace(value=value, headers=headers, topic="events", partition=0, offset=0)


def test_a_bug_in_tracing_ends_tracing_and_not_billing(seen: Seen) -> None:
    class Broken:
        calls = 0

        def step(self, records: Any, changes: Any, began_us: int) -> Any:
            self.calls += 1
            raise ZeroDivisionError

        def delivering(self, records: Any) -> Any:
            raise ZeroDivisionError

    stream = StringIO()
    configure_logging("INFO", "json", stream)
    broken = Broken()
    line = Line(None)
    line.work._traces = GuardedTraces(broken, broken)
    line.map("ada")
    traced(line, parent(1))
    traced(line, parent(2))
    line.now_us += 10**9
    line.punctuate()
    assert [event.properties["requests"] for event in line.events] == ["2"]
    assert broken.calls == 1
    assert [json.loads(text)["event"] for text in stream.getvalue().splitlines()] == ["traces_failed"]


def test_log_lines_within_a_span_have_its_ids(seen: Seen) -> None:
    stream = StringIO()
    configure_logging("INFO", "json", stream)
    add_trace_ids(current_ids)
    with seen.tracer.start_as_current_span("one") as span:
        structlog.get_logger("x").info("inside")
        context = span.get_span_context()
    structlog.get_logger("x").info("outside")
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert (inside["trace_id"], inside["span_id"]) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    assert not {"trace_id", "span_id"} & outside.keys()


def test_a_role_that_ends_removes_the_ids_from_no_other_roles_log_lines(seen: Seen) -> None:
    stream = StringIO()
    configure_logging("INFO", "json", stream)
    ended, running = (Tracing(make_provider(ALL, "1", lambda _outcome, _spans: None)) for _ in range(2))
    asyncio.run(ended.close())
    with seen.tracer.start_as_current_span("one"):
        structlog.get_logger("x").info("inside")
        asyncio.run(running.close())
        structlog.get_logger("x").info("after")
    lines = {line["event"]: line for line in map(json.loads, stream.getvalue().splitlines())}
    assert ("trace_id" in lines["inside"], "trace_id" in lines["after"]) == (True, False)
