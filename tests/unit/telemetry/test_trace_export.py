"""The export of spans: which of them are recorded, and what happens if the receiver is slow or down."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from connectors.config.tracing_settings import TracingConfig
from connectors.telemetry import tracing as tracing_module
from connectors.telemetry.logs import configure_logging
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.traces.context import parent_in, traceparent_of
from connectors.telemetry.traces.ingress import record_headers
from connectors.telemetry.traces.provider import OUTCOMES, QUEUE, make_provider
from connectors.telemetry.tracing import Tracing
from schemas.trace_context import TRACEPARENT
from tests.support.eventually import PATIENCE
from tests.support.spans import ALL, Refusing, Seen, parent


class Blocked(SpanExporter):
    """A receiver that accepts the first request and does not answer until it is released."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.begun.set()
        self.go.wait()
        return SpanExportResult.SUCCESS


def test_a_receiver_that_does_not_answer_loses_spans_and_delays_nothing() -> None:
    counted: Counter[str] = Counter()
    blocked = Blocked()
    provider = make_provider(ALL, "1", lambda outcome, spans: counted.update({outcome: spans}), blocked)
    tracer = provider.get_tracer("test")
    tracer.start_span("first").end()
    assert blocked.begun.wait(30 * PATIENCE)
    for _ in range(QUEUE + 10):
        tracer.start_span("more").end()
    assert counted == {"dropped": 11}
    blocked.go.set()
    provider.shutdown()
    assert counted == {"dropped": 11, "exported": QUEUE}


def test_lost_spans_are_counted_and_logged_once() -> None:
    counted: Counter[str] = Counter()
    refusing, stream = Refusing(), StringIO()
    configure_logging("INFO", "json", stream)
    provider = make_provider(ALL, "1", lambda outcome, spans: counted.update({outcome: spans}), refusing)
    for well in (False, False, True, True):
        refusing.well = well
        provider.get_tracer("test").start_span("one").end()
        provider.force_flush()
    assert counted == {"failed": 2, "exported": 2}
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "traces_not_exported",
        "traces_exported_again",
    ]
    provider.shutdown()


def test_the_metric_counts_by_outcome() -> None:
    metrics = Metrics(CollectorRegistry(), "1")
    provider = make_provider(ALL, "1", metrics.spans, Refusing())
    provider.get_tracer("test").start_span("one").end()
    provider.shutdown()
    name = "meterbridge_trace_spans_total"
    counted = {word: metrics.registry.get_sample_value(name, {"outcome": word}) for word in OUTCOMES}
    assert counted == {"exported": 0, "failed": 1, "dropped": 0}


@pytest.mark.parametrize(
    ("sampler", "recorded"),
    [
        ("always_on", (True, True, True)),
        ("always_off", (False, False, False)),
        ("traceidratio", (False, False, False)),
        ("parentbased_always_on", (True, True, False)),
        ("parentbased_always_off", (False, True, False)),
        ("parentbased_traceidratio", (False, True, False)),
    ],
)
def test_each_sampler_records_what_it_is_configured_for(sampler: Any, recorded: tuple[bool, bool, bool]) -> None:
    """Requests without a parent, with a recorded one, and with one that is not recorded; the ratio is 0."""
    provider = make_provider(TracingConfig("x", sampler, 0.0), "1", lambda _outcome, _spans: None, Refusing())
    tracer = provider.get_tracer("test")
    parents = (None, parent_in(parent(1).decode()), parent_in(parent(1).decode()[:-1] + "0"))
    assert tuple(tracer.start_span("one", context).is_recording() for context in parents) == recorded
    assert provider.resource.attributes["service.name"] == "x"
    provider.shutdown()


def test_a_stop_does_not_wait_for_a_receiver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_module, "LAST_SPANS_S", 0.01)
    blocked = Blocked()
    provider = make_provider(ALL, "1", lambda _outcome, _spans: None, blocked)
    tracing = Tracing(provider)
    provider.get_tracer("test").start_span("one").end()
    asyncio.run(tracing.close())
    assert not blocked.go.is_set()
    blocked.go.set()


def test_records_have_a_header_only_within_a_recorded_span() -> None:
    seen = Seen()
    assert record_headers() is None
    with seen.tracer.start_as_current_span("one") as span:
        assert record_headers() == [(TRACEPARENT, traceparent_of(span.get_span_context()).encode())]
    never = make_provider(
        TracingConfig("x", "parentbased_traceidratio", 0.0), "1", lambda _outcome, _spans: None, Refusing()
    )
    with never.get_tracer("test").start_as_current_span("one"):
        assert record_headers() is None
    never.shutdown()
