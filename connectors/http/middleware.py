"""The middleware of every request: it gives the request an id, and turns every error into problem JSON.

The id is the client's `X-Request-ID` if that is a plain word, otherwise a new one. The response and all log lines of
the request have it.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import chain
from secrets import token_hex

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from connectors.http.content_encoding import PACKED
from connectors.http.problem import Problem
from connectors.telemetry.logs import REQUEST_ID

_ID_HEADER = "X-Request-ID"
#: The path of the OpenAPI document; a process has it if it serves the management API.
_DOCUMENT = "/openapi.json"
_PLAIN_WORD = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_PARAMETER = re.compile(r"\{(\w+)\}")

_log = structlog.get_logger(__name__)


class RequestTracker:
    """The middleware of all applications of a process; it counts the running requests.

    When aiohttp closes a server, it stops reading the connections, and bodies that are still arriving would be lost. So the
    process first waits for the running requests, and closes each connection with its response.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._closing = False
        self._empty = asyncio.Event()
        self._empty.set()

    @web.middleware
    async def passing(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle a request as the middleware. Every response has the request's id; errors are problem JSON without any
        text of the request.
        """
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
        """Wait until no request runs, at most `limit_s` seconds. The caller must have stopped accepting connections."""
        self._closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._empty.wait()


def create_app(
    tracker: RequestTracker, *routes: Iterable[web.RouteDef], watching: Sequence[Middleware] = ()
) -> web.Application:
    """Return an application with all `routes`. Each request passes `tracker`, then the middlewares of `watching`.

    A part of a path that is a parameter may have any text: aiohttp's own pattern excludes braces.
    """
    app = web.Application(handler_args=PACKED, middlewares=[tracker.passing, *watching])
    for route in chain.from_iterable(routes):
        path = _PARAMETER.sub(r"{\1:[^/]+}", route.path)
        app.add_routes([web.route(route.method, path, route.handler, **route.kwargs)])
    return app


def _problem(request: web.Request, refusal: web.HTTPException) -> Problem:
    """Return the problem for an error of aiohttp's router. The path is not repeated, because it may hold a secret."""
    headers = {"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {}
    detail = refusal.reason
    if isinstance(refusal, web.HTTPNotFound):
        is_listed = any(resource.canonical == _DOCUMENT for resource in request.app.router.resources())
        where = f"GET {_DOCUMENT} lists all paths" if is_listed else "docs/endpoints.md lists the paths of each process"
        detail = f"there is no such path here; {where}"
    elif isinstance(refusal, web.HTTPMethodNotAllowed):
        detail = f"this path does not take {request.method}; it takes {', '.join(sorted(refusal.allowed_methods))}"
    return Problem(refusal.status, refusal.reason.lower().replace(" ", "_"), detail, headers)


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as refusal:
        return _problem(request, refusal).response()
    except web.RequestPayloadError:
        return Problem(400, "bad_encoding", "the body does not match its headers").response()
    except ConnectionError:
        raise  # the client has closed the connection
    except Exception:  # noqa: BLE001  # a bug of ours: it is logged and answered with 500
        _log.exception("request_failed", method=request.method, path=request.path)
        return Problem(500, "internal_error", "the log has the error, with the id of this request").response()
