"""HTTP connections with a time limit for the request head; input that is not HTTP is answered with problem JSON.

aiohttp calls a handler when the head is complete, so a handler cannot limit how slowly the head arrives. For input that
it cannot parse, aiohttp sends its own response, and repeats the bytes in the response and the log. An idle connection
of an authenticated sender stays open: senders reuse theirs, and may lose a request if it is closed. Other idle
connections are closed after the time limit of a head, and so are those whose client does not read its responses. While
a client does not read, nothing is read from it. A refused request is answered without reading its body.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.hdrs import EXPECT
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from connectors.http.problem import CLOSES, Problem
from connectors.http.unauthenticated_limits import UnauthenticatedConnections
from schemas.reasons import SILENT

#: Limits: bytes of the request line and of each header; number of headers.
MAX_LINE, MAX_HEADERS = 8190, 64

#: Seconds that a connection stays open after a refusal without reading the body: if the connection closes at once, the
#: client may lose the response.
_UNREAD_S: Final = 1.0
#: How many requests may wait on a connection before it is not read, and at how many it is read again. Each may have a
#: head of half a megabyte; aiohttp lets 32 wait.
_AHEAD, _AHEAD_AGAIN = 2, 1
#: How often an unauthenticated connection is found busy with the same request before it is closed.
_STUCK: Final = 2
#: Seconds after which the request of an unauthenticated connection has lasted so long that the connection may be closed
#: for a new one.
_SLOW_S: Final = 5.0
#: Seconds for reading the rest of a body that the handler did not read.
_LINGER_S: Final = 1.0
_REFUSALS: Final = 400
_SERVER_ERRORS: Final = 500

_TOO_MANY_HEADERS = "Too many headers"

_log = structlog.get_logger(__name__)


class BoundedRunner(web.AppRunner):
    """An AppRunner with connections as above.

    Args:
        head_s: time limit from the first to the last byte of a head; also how long an unauthenticated connection may be idle.
        unauthenticated: one object for all runners of the process.
    """

    __slots__ = ("_head_s", "_unauthenticated")

    def __init__(
        self, app: web.Application, head_s: float, unauthenticated: UnauthenticatedConnections, **kwargs: Any
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
        self._unauthenticated = unauthenticated

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _BoundedServer(made, self._head_s, self._unauthenticated)


def admitted(request: web.BaseRequest) -> None:
    """Mark the connection of this request as authenticated: its sender showed a valid credential."""
    connection = request.protocol
    if type(connection) is _Connection:
        connection.admit(request)


class _BoundedServer(web.Server):
    def __init__(self, made: web.Server, head_s: float, unauthenticated: UnauthenticatedConnections) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(made.request_handler, request_factory=made.request_factory, loop=loop, **made._kwargs)  # noqa: SLF001
        self._head_s = head_s
        self._unauthenticated = unauthenticated

    def __call__(self) -> RequestHandler:
        return _Connection(self, self._head_s, self._unauthenticated, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = (
        "_admitted",
        "_began",
        "_head_s",
        "_head_timer",
        "_is_known",
        "_seen",
        "_silence",
        "_stays",
        "_stuck",
        "_unauthenticated",
        "_wire",
        "address",
    )

    def __init__(
        self, manager: _BoundedServer, head_s: float, unauthenticated: UnauthenticatedConnections, **kwargs: Any
    ) -> None:
        super().__init__(manager, **kwargs)
        self._head_s = head_s
        self._unauthenticated = unauthenticated
        self._head_timer: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._stays = self._is_known = False
        self._admitted: web.BaseRequest | None = None
        self._seen = self._stuck = 0
        self._began = 0.0
        self._wire: asyncio.Transport | None = None
        self._max_msg_queue_size, self._msg_queue_resume_size = _AHEAD, _AHEAD_AGAIN
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close the connection at once if there are too many."""
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._stays = self._unauthenticated.connected(self)
        super().connection_made(transport)
        self._wire = self.transport
        if self._stays:
            self._silence = self._loop.call_later(self._head_s, self._look)
        else:
            self.force_close()

    def data_received(self, data: bytes) -> None:
        """Start the timer of the head if these bytes did not complete it."""
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
            self._unauthenticated.gone(self)
        self._wire = None
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Stop reading requests: the client does not read the responses to those before them."""
        super().pause_writing()
        self._pause_transport_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not (self._reading_paused or self._buffer_paused):
            self._resume_transport_reading()

    def _handle_request(self, *args: Any) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        self._began = self._loop.time()
        return super()._handle_request(*args)

    def is_idle(self) -> bool:
        """Return whether the connection waits for a request, and its client has got all responses."""
        return self._is_waiting() and not self._is_unread()

    def is_spare(self) -> bool:
        """Return whether the client does not read its response, has sent more requests before it got the response, or
        its request has lasted for seconds.
        """
        if self._is_unread():
            return True
        if not self._request_in_progress:  # one request may have just arrived
            return len(self._messages) > 1
        return bool(self._messages) or self._loop.time() - self._began > _SLOW_S

    def _is_waiting(self) -> bool:
        return (waiter := self._waiter) is not None and not waiter.done()

    def _is_unread(self) -> bool:
        """Return whether a part of a response is not sent yet."""
        return self.writing_paused or (self._wire is not None and self._wire.get_write_buffer_size() > 0)

    def drop(self) -> None:
        """Close the connection now. `force_close` would wait until the client has read what is not sent yet."""
        self.force_close()
        if self._wire is not None:
            self._wire.abort()

    def admit(self, request: web.BaseRequest) -> None:
        """Mark the connection as authenticated."""
        self._admitted = request
        if not self._is_known:
            self._is_known = True
            self._unauthenticated.known(self)

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send the response. Without a credential it may be delayed; the rest of the body of a refused request is not read."""
        answering = super().finish_response
        if isinstance(resp, web.HTTPException):  # aiohttp's own, for `Expect`: its text quotes the request
            resp = Problem(resp.status, resp.reason.lower().replace(" ", "_"), resp.reason, CLOSES).response()
        if resp.status < _REFUSALS and self._admitted is request:
            self._admitted = None
            return answering(request, resp, start_time)
        return self._send_late(answering, request, resp, start_time)

    async def _send_late(
        self,
        answering: Callable[..., Awaitable[tuple[web.StreamResponse, bool]]],
        request: web.BaseRequest,
        resp: web.StreamResponse,
        start_time: float | None,
    ) -> tuple[web.StreamResponse, bool]:
        is_refused = resp.status >= _REFUSALS
        is_unread = is_refused and not request.content.is_eof()
        is_unauthenticated, self._admitted = self._admitted is not request, None
        if (
            is_unauthenticated
            and resp.status < _SERVER_ERRORS
            and (wait_s := self._unauthenticated.answered(request, resp.status))
        ):
            await asyncio.sleep(wait_s)
            if is_refused:
                resp.force_close()
        if is_unread:
            resp.force_close()
        answered = await answering(request, resp, start_time)
        if is_unread:
            await self._leave_unread()
        return answered

    async def _leave_unread(self) -> None:
        """Leave the client one second to read the response, then close the connection."""
        self._lingering_time = 0.0
        if (transport := self.transport) is not None and not transport.is_closing():
            transport.pause_reading()
            if transport.can_write_eof():
                transport.write_eof()
            await asyncio.sleep(_UNREAD_S)
        self.force_close()

    def _look(self) -> None:
        """Close the connection if it is unauthenticated and sent no request since the last call, or since the call before that
        if its client does not read the response. A request that is being read or answered is left alone.
        """
        self._silence = None
        if self._is_known:
            return
        is_still = self._request_count == self._seen and self._head_timer is None
        self._stuck = self._stuck + 1 if is_still and (self._is_waiting() or self._is_unread()) else 0
        if self._stuck >= (1 if self.is_idle() else _STUCK):
            self._unauthenticated.on_closed(SILENT)
            self.drop()
            return
        self._seen = self._request_count
        self._silence = self._loop.call_later(self._head_s, self._look)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # it may quote what the client sent
    ) -> web.StreamResponse:
        """Answer with problem JSON. aiohttp calls this for input that it cannot parse, and for exceptions that leave a
        handler.
        """
        expected = request.headers.get(EXPECT)
        if isinstance(exc, UnicodeEncodeError) and expected and expected in exc.object:
            status = 417  # aiohttp cannot quote the header, whose bytes are no text
        if status < _SERVER_ERRORS:
            self._unauthenticated.malformed(request, type(exc).__name__)
        else:
            _log.warning("request_failed", error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the response is sent already")
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
        return Problem(status, "internal_error", "the log has the error", CLOSES)
    if status == web.HTTPExpectationFailed.status_code:
        return Problem(status, "expectation_failed", "Expectation Failed", CLOSES)
    if isinstance(error, ContentEncodingError):
        return Problem(415, "unknown_encoding", "Content-Encoding may be gzip, deflate or identity", CLOSES)
    if isinstance(error, LineTooLong) or _TOO_MANY_HEADERS in str(error):
        return Problem(431, "head_too_large", f"at most {MAX_HEADERS} headers, each of {MAX_LINE} bytes", CLOSES)
    return Problem(400, "bad_request", "this is not an HTTP request", CLOSES)


def _raw(problem: Problem) -> bytes:
    body = problem.body()
    head = f"HTTP/1.1 {problem.status} Request Timeout\r\nContent-Type: application/problem+json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


_TOO_SLOW = _raw(Problem(408, "head_too_slow", "the head of the request did not arrive in time"))
