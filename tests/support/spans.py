"""Spans in tests: a tracer that keeps them, a parent as a header names it, and a receiver that refuses them."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from connectors.config.tracing_settings import TracingConfig

#: Every span is recorded.
ALL = TracingConfig("meterbridge-meter", "always_on", 1.0)


class Seen:
    """A tracer that keeps its ended spans."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


class Refusing(SpanExporter):
    """A receiver that refuses spans until `well` is set."""

    well = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if self.well else SpanExportResult.FAILURE


def parent(number: int) -> bytes:
    return f"00-{number:032x}-{number:016x}-01".encode()
