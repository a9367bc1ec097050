"""Sets up OpenTelemetry's SDK for this process: resource, sampler, a bounded queue, and the OTLP exporter.

Spans wait in memory, at most `QUEUE` of them, and a thread of the SDK exports them. So if a receiver is slow or down,
spans are lost, which a metric counts, but the event loop is never delayed.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)

from connectors.config.tracing_settings import TracingConfig
from connectors.telemetry.traces.links import MOST_LINKS

#: The maximum number of ended spans that wait for the exporter; further spans are dropped.
QUEUE: Final = 2048
#: The maximum number of spans in one request.
_AT_ONCE: Final = 512
#: How long an export waits for more spans, milliseconds.
_DELAY_MS: Final = 1000

EXPORTED, FAILED, DROPPED = OUTCOMES = ("exported", "failed", "dropped")
Count = Callable[[str, int], None]

_log = structlog.get_logger(__name__)


def make_provider(
    config: TracingConfig, version: str, count: Count, exporter: SpanExporter | None = None
) -> TracerProvider:
    """Make the SDK's provider. `count(outcome, spans)` is called in any thread; `exporter` replaces the OTLP exporter
    in tests.
    """
    for name in ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal", "urllib3"):
        # These loggers log every failed request. `traces_not_exported` is logged once instead.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    provider = TracerProvider(
        sampler=_sampler(config),
        resource=Resource.create({"service.name": config.service_name, "service.version": version}),
        span_limits=SpanLimits(max_links=MOST_LINKS, max_events=0),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BoundedProcessor(exporter or OTLPSpanExporter(), count))
    return provider


class BoundedProcessor(SpanProcessor):
    """Adds a limit to the SDK's batches and counts dropped spans, because the SDK's queue drops spans without a count."""

    def __init__(self, exporter: SpanExporter, count: Count) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._waiting = 0
        counting = _CountingExporter(exporter, count, self._left)
        self._inner = BatchSpanProcessor(counting, QUEUE, _DELAY_MS, _AT_ONCE)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: only ended spans are exported."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span, or drop it where `QUEUE` spans wait."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            has_room = self._waiting < QUEUE
            self._waiting += has_room
        if has_room:
            self._inner.on_end(span)
        else:
            self._count(DROPPED, 1)

    def shutdown(self) -> None:
        """Export the waiting spans, and stop the thread."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export the waiting spans in this thread."""
        return bool(self._inner.force_flush(timeout_millis))

    def _left(self, spans: int) -> None:
        with self._lock:
            self._waiting -= spans


class _CountingExporter(SpanExporter):
    """Counts the results of an exporter, and logs when it begins to fail and when it works again. Used by one thread at
    a time.
    """

    def __init__(self, exporter: SpanExporter, count: Count, left: Callable[[int], None]) -> None:
        self._exporter = exporter
        self._count = count
        self._left = left
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        finally:
            self._left(len(spans))
        failed = result is not SpanExportResult.SUCCESS
        self._count(FAILED if failed else EXPORTED, len(spans))
        if failed and not self._failing:
            _log.warning("traces_not_exported", spans=len(spans), see="docs/tracing.md")
        elif self._failing and not failed:
            _log.info("traces_exported_again")
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))


def _sampler(config: TracingConfig) -> Sampler:
    match config.sampler:
        case "always_on":
            return ALWAYS_ON
        case "always_off":
            return ALWAYS_OFF
        case "traceidratio":
            return TraceIdRatioBased(config.ratio)
        case "parentbased_always_on":
            return DEFAULT_ON
        case "parentbased_always_off":
            return DEFAULT_OFF
        case "parentbased_traceidratio":
            return ParentBasedTraceIdRatio(config.ratio)
