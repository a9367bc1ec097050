"""A receiver of OTLP over HTTP on loopback, as an OpenTelemetry Collector is one: it decodes spans and keeps them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan


@dataclass(frozen=True, slots=True)
class SpanReceived:
    """One span; ids are hex, `parent` is `""` for a root, `links` are (trace, span)."""

    service: str
    name: str
    kind: str
    trace: str
    span: str
    parent: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    is_error: bool


@dataclass(slots=True)
class OtlpReceiver:
    """What arrived: the spans, and the bytes of all requests."""

    port: int = 0
    spans: list[SpanReceived] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        """The value for `OTEL_EXPORTER_OTLP_ENDPOINT`."""
        return f"http://127.0.0.1:{self.port}"

    def of_trace(self, trace: str) -> dict[str, SpanReceived]:
        """Return the spans of a trace, by their names."""
        return {span.name: span for span in self.spans if span.trace == trace}

    async def take(self, request: web.Request) -> web.Response:
        """The endpoint `/v1/traces`."""
        body = await request.read()  # aiohttp decompresses it
        self.raw.append(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(one.value.string_value for one in group.resource.attributes if one.key == "service.name")
            self.spans += [_read(service, span) for scope in group.scope_spans for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


@asynccontextmanager
async def otlp_receiver(port: int = 0) -> AsyncIterator[OtlpReceiver]:
    """Yield a receiver that listens until the exit; `port` 0 = any free one."""
    receiver = OtlpReceiver()
    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.post("/v1/traces", receiver.take)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        await runner.cleanup()


def _read(service: str, span: ProtoSpan) -> SpanReceived:
    return SpanReceived(
        service,
        span.name,
        ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes},
        span.status.code == 2,
    )
