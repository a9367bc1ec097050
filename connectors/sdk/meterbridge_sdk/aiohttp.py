"""The middleware for services on aiohttp, version 3.9 or later."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from meterbridge_sdk.identity import IdentifyOrg, get_current_org
from meterbridge_sdk.metering import RequestMeter, ServedRequest
from meterbridge_sdk.recorder import UsageRecorder
from meterbridge_sdk.request_ids import ID_HEADERS, REQUEST_ID


def _key(name: str) -> Any:
    """Return a key for values in a request. Since 3.14 aiohttp has a type for such keys and warns about plain text."""
    key_type = getattr(web, "RequestKey", None)
    return name if key_type is None else key_type(name, object)


#: The id for the request's response, and a response that has begun.
_RESPONSE_ID: Final = _key("meterbridge.response_id")
_BEGUN: Final = _key("meterbridge.begun")


def org_billing_middleware(
    recorder: UsageRecorder | None = None,
    *,
    identify: IdentifyOrg = get_current_org,
    id_headers: Sequence[str] = ID_HEADERS,
) -> Middleware:
    """Middleware that records one `api_call` for each answered request of an org, in the background.

    Args:
        recorder: takes the usage events; None = that of the running `org_billing_service`.
        identify: gives the org of a request; it is called after the response was made.
        id_headers: request headers that hold a request's id; the first one that is not empty counts.
    """
    meter = RequestMeter(recorder, identify, id_headers)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        generated_id = meter.new_id()
        if (response_id := meter.id_for_response(request.headers, generated_id)) is not None:
            request[_RESPONSE_ID] = response_id
        response: web.StreamResponse | None = None
        try:
            response = await handler(request)
            return response
        except web.HTTPException as raised:
            response = raised
            raise
        finally:
            response = response if response is not None else request.get(_BEGUN)
            if response is not None:
                if not response.prepared:
                    await return_request_id(request, response)
                served = ServedRequest(
                    request.method, request.path, request.headers, response.status, response.headers, generated_id
                )
                meter.record(request, served)

    return middleware


async def return_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Give the response its request's id. Append it to `app.on_response_prepare` if the service streams responses.

    The headers of a stream are sent before a middleware sees the response. A stream that the client ends early is
    recorded only with this.
    """
    request[_BEGUN] = response
    if (response_id := request.get(_RESPONSE_ID)) is not None:
        response.headers.setdefault(REQUEST_ID, response_id)


def flushing(recorder: UsageRecorder) -> Callable[[web.Application], Awaitable[None]]:
    """Return a function for `app.on_cleanup`, for services that make their own recorder.

    It records the waiting events before the process ends.
    """

    async def flush(_app: web.Application) -> None:
        await recorder.close()

    return flush
