"""Connections that give a request's head a limited time, and answer what is no HTTP as problem JSON.

aiohttp calls a handler once the head is complete, so nothing there can bound how slowly it trickles in; and it
answers what it cannot parse by itself, with the offending bytes in the answer and in the log. An idle connection of
a sender that was admitted is no matter: senders keep theirs, and one that is closed on them costs them a post. Others
are closed once they were silent for as long as a head may take. A refused request is answered and its body is not read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from connectors.http.problem import CLOSES, Problem
from connectors.http.unauthenticated import UnauthenticatedConnections
from schemas.reasons import SILENT

#: Bytes of the request line and of each header, and how many headers there may be.
MAX_LINE, MAX_HEADERS = 8190, 64

#: How long a connection stays open after a refusal that left a body unread: closing at once could lose the answer.
_UNREAD_S: Final = 1.0
#: How long the rest of a body is read that a handler did not want.
_LINGER_S: Final = 1.0
_REFUSALS: Final = 400
_SERVER_ERRORS: Final = 500

_TOO_MANY_HEADERS = "Too many headers"

_log = structlog.get_logger(__name__)


class BoundedRunner(web.AppRunner):
    """An AppRunner whose connections are as above.

    Args:
        head_s: from the first byte of a head to its last; and how long a stranger may be silent.
        strangers: of all runners of the process.
    """

    __slots__ = ("_head_s", "_strangers")

    def __init__(
        self, app: web.Application, head_s: float, strangers: UnauthenticatedConnections, **kwargs: Any
    ) -> None:
        super().__init__(
            app,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            lingering_time=_LINGER_S,
            **kwargs,
        )
        self._head_s = head_s
        self._strangers = strangers

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made, self._head_s, self._strangers)


def admitted(request: web.BaseRequest) -> None:
    """The sender of this request showed a credential that is right."""
    connection = request.protocol
    if type(connection) is _Connection:
        connection.admit(request)


class _Server(web.Server):
    def __init__(self, made: web.Server, head_s: float, strangers: UnauthenticatedConnections) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(made.request_handler, request_factory=made.request_factory, loop=loop, **made._kwargs)  # noqa: SLF001
        self._head_s = head_s
        self._strangers = strangers

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._head_s, self._strangers, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = (
        "_admitted",
        "_head_s",
        "_head_timer",
        "_is_known",
        "_seen",
        "_silence",
        "_stays",
        "_strangers",
        "address",
    )

    def __init__(self, manager: _Server, head_s: float, strangers: UnauthenticatedConnections, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._head_s = head_s
        self._strangers = strangers
        self._head_timer: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._stays = self._is_known = False
        self._admitted: web.BaseRequest | None = None
        self._seen = 0
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Where there is no room the connection is closed at once."""
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._stays = self._strangers.connected(self)
        super().connection_made(transport)
        if self._stays:
            self._silence = self._loop.call_later(self._head_s, self._look)
        else:
            self.force_close()

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
        if self._silence is not None:
            self._silence.cancel()
        if self._stays:
            self._stays = False
            self._strangers.gone(self)
        super().connection_lost(exc)

    def is_idle(self) -> bool:
        """It waits for a request."""
        return (waiter := self._waiter) is not None and not waiter.done()

    def admit(self, request: web.BaseRequest) -> None:
        """See `admitted`."""
        self._admitted = request
        if not self._is_known:
            self._is_known = True
            self._strangers.known(self)

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Answer; a refusal of a stranger may wait, and what it left unread is never read."""
        answering = super().finish_response
        if resp.status < _REFUSALS:
            self._admitted = None
            return answering(request, resp, start_time)
        return self._refuse(answering, request, resp, start_time)

    async def _refuse(
        self,
        answering: Callable[..., Awaitable[tuple[web.StreamResponse, bool]]],
        request: web.BaseRequest,
        resp: web.StreamResponse,
        start_time: float | None,
    ) -> tuple[web.StreamResponse, bool]:
        is_unread = not request.content.is_eof()
        is_stranger, self._admitted = self._admitted is not request, None
        if is_stranger and resp.status < _SERVER_ERRORS and (wait_s := self._strangers.refused(request, resp.status)):
            await asyncio.sleep(wait_s)
            resp.force_close()
        if is_unread:
            resp.force_close()
        answered = await answering(request, resp, start_time)
        if is_unread:
            await self._leave_unread()
        return answered

    async def _leave_unread(self) -> None:
        """The sender has a second to see the answer; then whatever it still sends meets a closed connection."""
        self._lingering_time = 0.0
        if (transport := self.transport) is not None and not transport.is_closing():
            transport.pause_reading()
            if transport.can_write_eof():
                transport.write_eof()
            await asyncio.sleep(_UNREAD_S)
        self.force_close()

    def _look(self) -> None:
        """A stranger that is idle and sent no request since the last look is closed."""
        self._silence = None
        if self._is_known:
            return
        if self.is_idle() and self._request_count == self._seen and self._head_timer is None:
            self._strangers.on_closed(SILENT)
            self.force_close()
            return
        self._seen = self._request_count
        self._silence = self._loop.call_later(self._head_s, self._look)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # quotes what the sender wrote
    ) -> web.StreamResponse:
        """Called for what could not be parsed, and for what escaped a handler."""
        if status < _SERVER_ERRORS:
            self._strangers.malformed(request, type(exc).__name__)
        else:
            _log.warning("request_failed", error=type(exc).__name__)
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
    if status >= _SERVER_ERRORS:
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
