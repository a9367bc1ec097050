"""The middleware for services on ASGI: Starlette, FastAPI and others. It does not import these frameworks."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from meterbridge_sdk.identity import IdentifyOrg, get_current_org
from meterbridge_sdk.metering import RequestMeter, ServedRequest
from meterbridge_sdk.recorder import UsageRecorder
from meterbridge_sdk.request_ids import ID_HEADERS, REQUEST_ID

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class OrgBillingMiddleware:
    """Records one `api_call` for each answered request of an org, with the end of the response.

    `app.add_middleware(OrgBillingMiddleware)` adds it to an application of Starlette or FastAPI.

    Args:
        app: the ASGI application.
        recorder, identify, id_headers: as of `meterbridge_sdk.aiohttp.org_billing_middleware`.
    """

    def __init__(
        self,
        app: App,
        recorder: UsageRecorder | None = None,
        *,
        identify: IdentifyOrg = get_current_org,
        id_headers: Sequence[str] = ID_HEADERS,
    ) -> None:
        self._app = app
        self._meter = RequestMeter(recorder, identify, id_headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. A response that has begun is recorded, even if the client leaves before its end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})  # values that the application adds to it must be visible here
        generated_id, request_headers = self._meter.new_id(), _headers(scope["headers"])
        response_id = self._meter.id_for_response(request_headers, generated_id)
        begun: list[ServedRequest] = []

        def record() -> None:
            while begun:
                self._meter.record(scope, begun.pop())

        async def recording_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = _with_id(message, response_id)
                response_headers = _headers(message.get("headers", ()))
                begun.append(
                    ServedRequest(
                        scope["method"],
                        scope["path"],
                        request_headers,
                        message["status"],
                        response_headers,
                        generated_id,
                    )
                )
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                record()
            await send(message)

        try:
            await self._app(scope, receive, recording_send)
        finally:
            record()


def _with_id(start: Message, response_id: str | None) -> Message:
    """Return the start of a response, with the request's id if the service has not set an id."""
    headers = start.get("headers", ())
    if response_id is None or REQUEST_ID.lower() in _headers(headers):
        return start
    return {**start, "headers": [*headers, (REQUEST_ID.lower().encode(), response_id.encode())]}


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers by their names in lower case; of several headers with the same name, the first."""
    values: dict[str, str] = {}
    for name, value in raw:
        values.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return values
