"""What every request passes: it gets an id, and whatever goes wrong is answered as problem JSON.

The id is the sender's `X-Request-ID` where that is a plain word, else a new one; it is in the answer and in
every line that is logged meanwhile.
"""

import re
from collections.abc import Awaitable, Callable
from secrets import token_hex

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from connectors.http.auth import WebhookAuth
from connectors.http.problem import Problem
from connectors.logs import REQUEST_ID

_ID_HEADER = "X-Request-ID"
_PLAIN_WORD = re.compile(r"[\w.:-]{1,64}", re.ASCII)

_log = structlog.get_logger(__name__)


@web.middleware
async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers carry the request's id; errors are problem JSON and hold nothing of the request."""
    given = request.headers.get(_ID_HEADER, "")
    request_id = given if _PLAIN_WORD.fullmatch(given) else token_hex(8)
    token = REQUEST_ID.set(request_id)
    try:
        response = await _answered(request, handler)
    finally:
        REQUEST_ID.reset(token)
    response.headers[_ID_HEADER] = request_id
    return response


def bearer_only(
    auth: WebhookAuth, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """`handler` for those who name one of `auth`'s tokens, 401 for everybody else; without tokens that is everybody."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        if not auth.knows_token(request.headers.get("Authorization")):
            raise Problem(
                401, "unknown_token", "the bearer token is not the master key", {"WWW-Authenticate": "Bearer"}
            )
        return await handler(request)

    return guarded


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as refusal:
        headers = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {}
        return Problem(refusal.status, refusal.reason.lower().replace(" ", "_"), refusal.reason, headers).response()
    except ConnectionError:
        raise  # the client left; there is nobody to answer
    except Exception:  # noqa: BLE001  # our own bug: told, counted as 500, and the next request is served
        _log.exception("request_failed", method=request.method, path=request.path)
        return Problem(500, "internal_error", "the error is in the log, under this request's id").response()
