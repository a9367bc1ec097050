"""Reads and writes W3C's `traceparent`, and gives the ids for log lines."""

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from schemas.trace_context import TRACEPARENT

_W3C = TraceContextTextMapPropagator()


def parent_in(traceparent: str) -> Context:
    """Return the context of a span that another process began; a malformed text is a context without a span.

    `tracestate` is not read: other programs choose its text, and every span and record would contain it.
    """
    return _W3C.extract({TRACEPARENT: traceparent}, Context())


def traceparent_of(span: SpanContext) -> str:
    """Return the header's value that names this span as the parent."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def current_ids() -> tuple[str, str] | None:
    """Return trace id and span id of the current span in hex; None = no span is recorded."""
    span = get_current_span()
    if not span.is_recording():
        return None
    context = span.get_span_context()
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"
