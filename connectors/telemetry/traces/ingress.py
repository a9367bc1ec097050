"""The spans of the ingress: the request (SERVER) and the sending of its records (PRODUCER)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, get_current_span

from connectors.telemetry.traces import attributes as names
from connectors.telemetry.traces.attributes import attributes, kafka
from connectors.telemetry.traces.context import parent_in, traceparent_of
from schemas.trace_context import TRACEPARENT

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BatchSender(Protocol):
    """See `connectors.ingest.store.RecordSender`."""

    async def send_all(self, records: Sequence[Any]) -> Any: ...


class IngressTraces:
    """Makes the spans of one process's webhooks."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def of_route(self, route: web.RouteDef) -> web.RouteDef:
        """Return the route with a span around each request. Its parent is the sender's `traceparent`, if there is one."""
        handler: Any = route.handler
        fixed = attributes({names.HTTP_METHOD: route.method, names.HTTP_ROUTE: route.path})

        async def traced(request: web.Request) -> web.StreamResponse:
            with self._tracer.start_as_current_span(
                f"{route.method} {route.path}",
                _parent_of(request.headers),
                SpanKind.SERVER,
                {**fixed, names.URL_SCHEME: request.scheme},
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    response: web.StreamResponse = await handler(request)
                except BaseException as error:
                    _failed(span, type(error).__name__)
                    raise
                span.set_attribute(names.HTTP_STATUS, response.status)
                if response.status >= 500:
                    _failed(span, str(response.status))
                return response

        return web.route(route.method, route.path, traced, **route.kwargs)

    def over(self, sender: BatchSender, topic: str) -> "TracedSender":
        """Return `sender` with a span around each sending."""
        return TracedSender(self._tracer, sender, topic)


class TracedSender:
    """A `RecordSender` whose records carry the `traceparent` of its span; see `record_headers`."""

    def __init__(self, tracer: Tracer, sender: BatchSender, topic: str) -> None:
        self._tracer = tracer
        self._sender = sender
        self._topic = topic

    async def send_all(self, records: Sequence[Any]) -> Any:
        """See `KafkaProducer.send_all`."""
        if not get_current_span().is_recording():
            return await self._sender.send_all(records)
        topic = records[0][0] if records else self._topic
        about = attributes({**kafka(topic, "send", "send"), names.COUNT: len(records)})
        with self._tracer.start_as_current_span(
            f"send {topic}",
            None,
            SpanKind.PRODUCER,
            about,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return await self._sender.send_all(records)
            except BaseException as error:
                _failed(span, type(error).__name__)
                raise


def record_headers() -> list[tuple[str, bytes]] | None:
    """Return the headers of a record that is sent now; None = no span is recorded."""
    span = get_current_span()
    return [(TRACEPARENT, traceparent_of(span.get_span_context()).encode())] if span.is_recording() else None


def _parent_of(headers: Mapping[str, str]) -> Any:
    given = headers.get(TRACEPARENT)
    return None if given is None else parent_in(given)


def _failed(span: Span, kind: str) -> None:
    """Record the type of the error without its text, which may contain a payload."""
    span.set_attribute(names.ERROR_TYPE, kind)
    span.set_status(StatusCode.ERROR)
