"""The spans of the meter: of each traced call (CONSUMER), and of each event that bills one (PRODUCER)."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Tracer, set_span_in_context

from connectors.telemetry.traces import attributes as names
from connectors.telemetry.traces.attributes import Value, attributes, kafka, operation_of
from connectors.telemetry.traces.context import parent_in, traceparent_of
from connectors.telemetry.traces.links import TracedCalls
from schemas.decoding import decoder
from schemas.records import EnrichedUsage, Manifest
from schemas.topics import TopicNames
from schemas.trace_context import recorded_parent
from streams.core.metering.decisions import DUPLICATE, REJECTED
from streams.core.metering.step_changes import Changes, SealedPart


class _Place(msgspec.Struct):
    """Where a call is in the raw topic, of an enriched call or of a rejection."""

    offset: int = -1
    reason: str = ""


_place = decoder(_Place)
_usage = decoder(EnrichedUsage)


class MeterSpans:
    """`streams.agents.traces.MeterTraces`."""

    def __init__(self, tracer: Tracer, topics: TopicNames, group: str) -> None:
        self._tracer = tracer
        self._topics = topics
        self._group = group
        self._calls = TracedCalls()

    def step(self, records: Sequence[Any], changes: Changes, began_us: int) -> Callable[[], None]:
        """Begin the spans of a step that is about to be committed; the result ends them.

        A failed step is not ended, so none of its spans is exported.
        """
        spans = list(self._calls_of(records, changes, began_us))
        for part in changes.sealed:
            calls = self._calls.take(_windows_of(part.event.transaction_id, part.manifest))
            if calls:
                spans.append(self._event(part, calls, began_us))

        def committed() -> None:
            for span in spans:
                span.end()

        return committed

    def _calls_of(self, records: Sequence[Any], changes: Changes, began_us: int) -> Iterator[Span]:
        for record in records:
            if not record.headers or not (parent := recorded_parent(record.headers)):
                continue
            about = {
                **kafka(record.topic, "process", "process"),
                names.PARTITION: str(record.partition),
                names.OFFSET: record.offset,
                names.GROUP: self._group,
            }
            usage = _usage_of(changes, record.offset)
            about |= _about(usage) if usage is not None else _about_other(changes, record.offset)
            span = self._tracer.start_span(
                f"process {record.topic}",
                parent_in(parent),
                SpanKind.CONSUMER,
                attributes(about),
                start_time=began_us * 1000,
            )
            if usage is not None and usage.part:
                self._calls.add(usage.part, span.get_span_context())
            yield span

    def _event(self, part: SealedPart, calls: Sequence[SpanContext], began_us: int) -> Span:
        """Return the span of an event: a child of its first traced call, with links to all of them."""
        topic = self._topics.events
        about = {
            **kafka(topic, "seal", "send"),
            names.TRANSACTION_ID: part.event.transaction_id,
            names.CALLS: part.manifest.count,
        }
        span = self._tracer.start_span(
            f"send {topic}",
            set_span_in_context(NonRecordingSpan(calls[0])),
            SpanKind.PRODUCER,
            attributes(about),
            [Link(call) for call in calls],
            start_time=began_us * 1000,
        )
        if span.is_recording():
            part.traceparent = traceparent_of(span.get_span_context()).encode()
        return span


def _usage_of(changes: Changes, offset: int) -> EnrichedUsage | None:
    """Return the call at an offset; None = the call was rejected, or is a repeat. The calls of a step are in the order
    of their offsets.
    """
    enriched = changes.enriched
    place = bisect_left(enriched, offset, key=lambda pair: _place(pair[1]).offset)
    if place == len(enriched) or _place(enriched[place][1]).offset != offset:
        return None
    usage = _usage(enriched[place][1])
    return None if usage.decision == REJECTED else usage


def _about(usage: EnrichedUsage) -> dict[str, Value]:
    return {
        names.GEN_AI_OPERATION: operation_of(usage.call_type),
        names.GEN_AI_PROVIDER: usage.provider,
        names.GEN_AI_MODEL: usage.model,
        names.INPUT_TOKENS: usage.tokens_input,
        names.OUTPUT_TOKENS: usage.tokens_output,
        names.DECISION: usage.decision,
        names.HELD: usage.held,
        names.TRANSACTION_ID: usage.part,
    }


def _about_other(changes: Changes, offset: int) -> dict[str, Value]:
    for _, value in changes.rejected:
        rejection = _place(value)
        if rejection.offset == offset:
            return {names.DECISION: REJECTED, names.REASON: rejection.reason}
    return {names.DECISION: DUPLICATE}


def _windows_of(transaction_id: str, manifest: Manifest) -> list[str]:
    """Return the transaction ids of the windows that became this event: its own, and those of held windows merged into
    it.
    """
    prefix = transaction_id.removesuffix(str(manifest.first))
    return [transaction_id, *(f"{prefix}{first}" for first in manifest.windows)]
