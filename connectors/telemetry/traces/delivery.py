"""The spans of the sink and the retry role: of each traced event (CONSUMER), and of each post that contains one (CLIENT)."""

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context

from connectors.telemetry.traces import attributes as names
from connectors.telemetry.traces.attributes import Value, attributes, kafka
from connectors.telemetry.traces.context import parent_in, traceparent_of
from connectors.telemetry.traces.links import MOST_LINKS
from schemas.decoding import decoder
from schemas.errors import Unavailable
from schemas.trace_context import TRACEPARENT, recorded_parent
from streams.core.delivery.batches import EventOutcome
from streams.core.delivery.verdicts import HttpResponse
from streams.delivery.lago_port import LagoEventsApi

_PATH = "/api/v1/events/batch"
#: The maximum number of traced events in flight. The posts of further events are not recorded.
_MOST_EVENTS = 10_000


class _Id(msgspec.Struct):
    transaction_id: str = ""


class _Ids(msgspec.Struct):
    events: list[_Id] = []


_id, _ids = decoder(_Id), decoder(_Ids)


class DeliverySpans:
    """`streams.agents.traces.DeliveryTraces`."""

    def __init__(self, tracer: Tracer, group: str) -> None:
        self.tracer = tracer
        self.under_way: dict[str, Span] = {}
        self._group = group

    def delivering(self, records: Sequence[Any]) -> Callable[[Sequence[EventOutcome]], None]:
        """Begin the spans of events that are about to be posted; the result ends them with the events' outcomes."""
        spans: dict[int, tuple[str, Span]] = {}
        for place, record in enumerate(records):
            if not record.headers or not (parent := recorded_parent(record.headers)):
                continue
            transaction_id = _transaction_id(record.value)
            about = {
                **kafka(record.topic, "process", "process"),
                names.PARTITION: str(record.partition),
                names.OFFSET: record.offset,
                names.GROUP: self._group,
                names.TRANSACTION_ID: transaction_id,
            }
            span = self.tracer.start_span(
                f"process {record.topic}", parent_in(parent), SpanKind.CONSUMER, attributes(about)
            )
            spans[place] = transaction_id, span
            if transaction_id and len(self.under_way) < _MOST_EVENTS:
                self.under_way[transaction_id] = span

        def settled(outcomes: Sequence[EventOutcome]) -> None:
            for place, (transaction_id, span) in spans.items():
                self.under_way.pop(transaction_id, None)
                result = (outcomes[place].kind, outcomes[place].reason) if outcomes else ("given_back", "")
                span.set_attributes(attributes({names.OUTCOME: result[0], names.REASON: result[1]}))
                span.end()

        return settled

    def over(self, lago: LagoEventsApi, url: str) -> "TracedLago":
        """Return `lago` with a span around each post that contains a traced event. `url`: of Lago's API."""
        return TracedLago(self, lago, url)


class TracedLago:
    """A `LagoEventsApi` whose posts have spans."""

    def __init__(self, spans: DeliverySpans, lago: LagoEventsApi, url: str) -> None:
        self._spans = spans
        self._lago = lago
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._about: dict[str, Value] = {
            names.HTTP_METHOD: "POST",
            names.URL_PATH: _PATH,
            names.URL_SCHEME: parts.scheme,
        }
        self._about |= {names.SERVER_ADDRESS: parts.hostname or "", names.SERVER_PORT: port}
        self.get_event = lago.get_event
        self.healthy = lago.healthy

    async def post_batch(self, body: bytes) -> HttpResponse:
        """See `LagoEventsApi.post_batch`."""
        under_way = self._spans.under_way
        if not under_way:
            return await self._lago.post_batch(body)
        sent = [event.transaction_id for event in _ids(body).events]
        parents = [under_way[name] for name in sent if name in under_way]
        if not parents:
            return await self._lago.post_batch(body)
        with self._spans.tracer.start_as_current_span(
            f"POST {_PATH}",
            set_span_in_context(parents[0]),
            SpanKind.CLIENT,
            attributes({**self._about, names.COUNT: len(sent)}),
            [Link(span.get_span_context()) for span in parents[:MOST_LINKS]],
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                answer = await self._lago.post_batch(body)
            except Unavailable as error:
                span.set_attribute(names.ERROR_TYPE, error.reason)
                span.set_status(StatusCode.ERROR)
                raise
            span.set_attribute(names.HTTP_STATUS, answer.status)
            if answer.status >= 400:
                span.set_attribute(names.ERROR_TYPE, str(answer.status))
                span.set_status(StatusCode.ERROR)
            return answer


async def tell_lago(request: httpx.Request) -> None:
    """Add the `traceparent` to a request within a recorded span; this is a hook of httpx."""
    span = get_current_span()
    if span.is_recording():
        request.headers[TRACEPARENT] = traceparent_of(span.get_span_context())


def _transaction_id(value: bytes | None) -> str:
    """Return the transaction id of an event; `""` = the record is not an event."""
    try:
        return _id(value or b"").transaction_id
    except msgspec.DecodeError:
        return ""
