"""Connections that give a request's head a limited time, and answer what is no HTTP as problem JSON.

aiohttp calls a handler once the head is complete, so nothing there can bound how slowly it trickles in; and it
answers what it cannot parse by itself, with the offending bytes in the answer and in the log. An idle connection is
no matter: senders keep theirs, and one that is closed on them costs them a post.
"""

import asyncio
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from connectors.http.problem import CLOSES, Problem

#: Bytes of the request line and of each header, and how many headers there may be.
MAX_LINE, MAX_HEADERS = 8190, 64

_TOO_MANY_HEADERS = "Too many headers"

_log = structlog.get_logger(__name__)


class BoundedRunner(web.AppRunner):
    """An AppRunner whose connections are as above.

    Args:
        head_s: from the first byte of a head to its last.
    """

    __slots__ = ("_head_s",)

    def __init__(self, app: web.Application, head_s: float, **kwargs: Any) -> None:
        super().__init__(app, max_line_size=MAX_LINE, max_field_size=MAX_LINE, max_headers=MAX_HEADERS, **kwargs)
        self._head_s = head_s

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made, self._head_s)


class _Server(web.Server):
    def __init__(self, made: web.Server, head_s: float) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(made.request_handler, request_factory=made.request_factory, loop=loop, **made._kwargs)  # noqa: SLF001
        self._head_s = head_s

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._head_s, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ("_head_s", "_head_timer")

    def __init__(self, manager: _Server, head_s: float, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._head_s = head_s
        self._head_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """A request is waited for and these bytes did not complete its head: its time runs."""
        super().data_received(data)
        if (waiter := self._waiter) is not None and not waiter.done():
            if self._head_timer is None:
                self._head_timer = self._loop.call_later(self._head_s, self._give_up_head)
        elif self._head_timer is not None:
            self._stop_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # quotes what the sender wrote
    ) -> web.StreamResponse:
        """Called for what could not be parsed, and for what escaped a handler."""
        _log.warning("request_malformed" if status < 500 else "request_failed", error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("half an answer is sent already")
        return _problem_of(status, exc).response()

    def _give_up_head(self) -> None:
        self._head_timer = None
        if self.transport is not None:
            self.transport.write(_TOO_SLOW)
        self.force_close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _problem_of(status: int, error: BaseException | None) -> Problem:
    if status >= 500:
        return Problem(status, "internal_error", "the error is in the log", CLOSES)
    if isinstance(error, ContentEncodingError):
        return Problem(415, "unknown_encoding", "Content-Encoding may be gzip, deflate or identity", CLOSES)
    if isinstance(error, LineTooLong) or _TOO_MANY_HEADERS in str(error):
        return Problem(431, "head_too_large", f"at most {MAX_HEADERS} headers, each of {MAX_LINE} bytes", CLOSES)
    return Problem(400, "bad_request", "this is no HTTP request", CLOSES)


def _raw(problem: Problem) -> bytes:
    body = problem.body()
    head = f"HTTP/1.1 {problem.status} Request Timeout\r\nContent-Type: application/problem+json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


_TOO_SLOW = _raw(Problem(408, "head_too_slow", "the request's head did not arrive in time"))
