"""The middleware for services on aiohttp."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from connectors.middleware.calls import Answered, Billing, Who
from connectors.middleware.recorder import Recorder
from connectors.middleware.request_ids import ID_HEADERS, RETURNED
from connectors.middleware.who import get_current_org

#: In the request: the id to be returned with its answer, and an answer that has begun.
_RETURN: Final = web.RequestKey("meterbridge.returned_id", str)
_BEGUN: Final = web.RequestKey("meterbridge.begun", web.StreamResponse)


def org_billing_middleware(
    recorder: Recorder | None = None, *, who: Who = get_current_org, id_headers: Sequence[str] = ID_HEADERS
) -> Middleware:
    """Records one `api_call` for each answered request of an org, in the background.

    Args:
        recorder: where to; by default the running `org_billing_service`'s.
        who: whose the request is, asked after the answer.
        id_headers: of the request, the first one there makes the transaction id (connectors/middleware/request_ids.py).
    """
    billing = Billing(recorder, who, id_headers)

    @web.middleware
    async def recording(request: web.Request, handler: Handler) -> web.StreamResponse:
        made = billing.made_id()
        if (returned := billing.returned_id(request.headers, made)) is not None:
            request[_RETURN] = returned
        answer: web.StreamResponse | None = None
        try:
            answer = await handler(request)
            return answer
        except web.HTTPException as refusal:
            answer = refusal
            raise
        finally:
            answer = answer if answer is not None else request.get(_BEGUN)
            if answer is not None:
                if not answer.prepared:
                    await return_request_id(request, answer)
                told = Answered(request.method, request.path, request.headers, answer.status, answer.headers, made)
                billing.note(request, told)

    return recording


async def return_request_id(request: web.Request, answer: web.StreamResponse) -> None:
    """Give the answer its request's id. To be added to `app.on_response_prepare` where answers are streamed.

    A stream's headers are gone before any middleware sees it; one that the client cuts is recorded only with this.
    """
    request[_BEGUN] = answer
    if (made := request.get(_RETURN)) is not None:
        answer.headers.setdefault(RETURNED, made)


def flushing(recorder: Recorder) -> Callable[[web.Application], Awaitable[None]]:
    """For `app.on_cleanup`, where a service makes its recorder itself: what waits is stored before the process ends."""

    async def flush(_app: web.Application) -> None:
        await recorder.close()

    return flush
