"""What every request passes: it gets an id, is waited for, and whatever goes wrong is answered as problem JSON.

The id is the sender's `X-Request-ID` where that is a plain word, else a new one; it is in the answer and in
every line that is logged meanwhile.
"""

import asyncio
import re
from contextlib import suppress
from secrets import token_hex

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from connectors.http.problem import Problem
from connectors.telemetry.logs import REQUEST_ID

_ID_HEADER = "X-Request-ID"
_PLAIN_WORD = re.compile(r"[\w.:-]{1,64}", re.ASCII)

_log = structlog.get_logger(__name__)


class RequestTracker:
    """The middleware of a process's applications, and the requests that are inside.

    aiohttp stops reading a connection as soon as it closes a server: a body still on its way would be lost. So
    the requests inside are waited for first, and connections are ended with their answers.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()

    @web.middleware
    async def passing(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers carry the request's id; errors are problem JSON and hold nothing of the request."""
        given = request.headers.get(_ID_HEADER, "")
        request_id = given if _PLAIN_WORD.fullmatch(given) else token_hex(8)
        token = REQUEST_ID.set(request_id)
        self._inside += 1
        self._empty.clear()
        try:
            response = await _answered(request, handler)
        finally:
            REQUEST_ID.reset(token)
            self._inside -= 1
            if not self._inside:
                self._empty.set()
        response.headers[_ID_HEADER] = request_id
        if self._closing:
            response.force_close()
        return response

    async def close(self, limit_s: float) -> None:
        """Return when nobody is inside any more, at the latest after `limit_s`; call it once nobody new can come."""
        self._closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._empty.wait()


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as refusal:
        headers = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {}
        return Problem(refusal.status, refusal.reason.lower().replace(" ", "_"), refusal.reason, headers).response()
    except web.RequestPayloadError:
        return Problem(400, "bad_encoding", "the body is not what its headers say").response()
    except ConnectionError:
        raise  # the client left; there is nobody to answer
    except Exception:  # noqa: BLE001  # our own bug: told, counted as 500, and the next request is served
        _log.exception("request_failed", method=request.method, path=request.path)
        return Problem(500, "internal_error", "the error is in the log, under this request's id").response()
