"""Serves the Prometheus metrics over HTTP from its own threads, so that it answers while the event loop is busy.

Clients of this port need no credential, so each is limited: few connections, a short time, a small request head, and
few responses per second. A flood can delay scrapes, but not the rest of the process.
"""

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from io import BufferedIOBase
from socketserver import ThreadingMixIn
from typing import Any, Final, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from connectors.config.ports import port_refused
from connectors.telemetry.worker_health import WorkerHealth
from schemas.reasons import FULL, FULL_OF_ONE, SILENT

#: Maximum number of connections that are served at the same time, in total and for one address.
#: `connectors.http.unauthenticated_limits` reserves twice as many file descriptors, because a closed connection keeps its
#: descriptor until its thread has ended.
MOST, MOST_OF_ONE = 16, 8
#: Seconds from the accepted connection to the last byte of the response. Prometheus' default time limit of a scrape is ten
#: seconds.
LIFE_S: Final = 10.0
#: Bytes of the request line and all headers.
MAX_HEAD: Final = 16_384
#: Responses take at most this share of one core, and at most this many are made per second: all threads share a core.
_SHARE, _ANSWERS_PER_S = 0.2, 20.0
_LOOK_EVERY_S: Final = 0.5
#: The listen backlog of the kernel; these connections take no file descriptor.
_BACKLOG: Final = 128
_THREAD_ENDS_S: Final = 1.0

_log = structlog.get_logger(__name__)
_Answer = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class MetricsServer(NamedTuple):
    """The port of a running server, and a function that stops it."""

    port: int
    stop: Callable[[], None]


def start_metrics_server(
    registry: CollectorRegistry,
    host: str,
    port: int,
    on_closed: Callable[[str], None] = lambda _cause: None,
    health: WorkerHealth | None = None,
    life_s: float = LIFE_S,
) -> MetricsServer:
    """Serve `registry` on every path, in the format that `Accept` asks for, and `health` to probes.

    Args:
        port: 0 = any free port.
        on_closed: called, in any thread, with the cause when this process closes a connection, one of
            `schemas.reasons.CONNECTION_CAUSES`.
        health: answers probes at once, without the rate limit of scrapes; None = there are no probes.
        life_s: seconds that a connection may last.

    Raises:
        ConfigurationError: the process cannot listen on the port.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = _MetricsHttpServer(
            family, str(address[0]), port, Places(MOST, MOST_OF_ONE, life_s, time.monotonic, on_closed)
        )
    except OSError as error:
        raise port_refused("METRICS_PORT", port, host, error) from error
    metrics = _seldom(make_wsgi_app(registry))
    server.set_app(metrics if health is None else health.beside(metrics))
    thread = threading.Thread(target=server.serve_forever, args=(_LOOK_EVERY_S,), name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(_THREAD_ENDS_S)

    return MetricsServer(server.server_port, stop)


@dataclass(slots=True)
class Places:
    """The open connections, the oldest first. At the limit, an older connection is closed for a new one.

    The closed connection belongs to the same address if that address has `of_one` connections, otherwise to the address
    with the most connections. So a client that opens many connections loses its own. All methods may be called in any
    thread.

    Args:
        total: connections; twice as many threads may exist.
        of_one: connections of one address.
        life_s: seconds that a connection may last.
        monotonic: seconds.
        on_closed: see `start_metrics_server`.
    """

    total: int
    of_one: int
    life_s: float
    monotonic: Callable[[], float]
    on_closed: Callable[[str], None] = lambda _cause: None
    _lock: threading.Condition = field(default_factory=threading.Condition, init=False)
    _open: dict[socket.socket, tuple[str, float]] = field(
        default_factory=dict, init=False
    )  # address, and when it must end
    _threads: int = field(default=0, init=False)

    def take(self, connection: socket.socket, address: str) -> bool:
        """Return whether a new connection may stay; if not, the caller closes it.

        If too many threads exist, it waits a moment: the thread of a closed connection usually ends at once.
        """
        with self._lock:
            if not self._lock.wait_for(lambda: self._threads < 2 * self.total, _THREAD_ENDS_S):
                self.on_closed(FULL)
                return False
            counts = Counter(of for of, _ in self._open.values())
            if counts[address] >= self.of_one:
                self._cut_oldest(address, FULL_OF_ONE)
            elif len(self._open) >= self.total:
                self._cut_oldest(counts.most_common(1)[0][0], FULL)
            self._open[connection] = address, self.monotonic() + self.life_s
            self._threads += 1
            return True

    def leave(self, connection: socket.socket) -> None:
        """Register that the thread of a connection that `take` accepted has ended."""
        with self._lock:
            self._open.pop(connection, None)
            self._threads -= 1
            self._lock.notify()

    def cut_late(self) -> None:
        """Close every connection that has lasted too long."""
        with self._lock:
            now = self.monotonic()
            for connection in [client for client, (_, until) in self._open.items() if until <= now]:
                self._cut(connection, SILENT)

    def _cut_oldest(self, address: str, cause: str) -> None:
        self._cut(next(client for client, (of, _) in self._open.items() if of == address), cause)

    def _cut(self, connection: socket.socket, cause: str) -> None:
        """Shut the connection down. Its thread then gets an error and closes it."""
        self.on_closed(cause)
        del self._open[connection]
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # the client has closed it already
            return


class _MetricsHttpServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(self, family: int, host: str, port: int, places: Places) -> None:
        self.address_family = family
        self._places = places
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle the connection in a new thread, if it may stay."""
        if not self._places.take(request, str(client_address[0])):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._places.leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one request, then close the connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.leave(request)

    def service_actions(self) -> None:
        """Close late connections; the base class calls this every `_LOOK_EVERY_S` seconds."""
        self._places.cut_late()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # the base class's
        """Log an unexpected error; the base class calls this in an `except` block. Errors of connections are not
        logged.
        """
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            _log.warning("metrics_not_answered", error=type(error).__name__)


class _Handler(WSGIRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.rfile: Any = _Head(self.rfile)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's
        """Do nothing: scrapes are not logged."""


class _Head:
    """The input of a request; a head that is larger than `MAX_HEAD`, or truncated, ends the connection."""

    def __init__(self, rfile: BufferedIOBase) -> None:
        self._rfile = rfile
        self._left = MAX_HEAD

    def readline(self, limit: int = -1) -> bytes:
        line = self._rfile.readline(min(self._left + 1, limit) if limit >= 0 else self._left + 1)
        self._left -= len(line)
        if self._left < 0 or not line:  # the base class would answer an incomplete head
            raise ConnectionError("the head is too large, or truncated")
        return line

    def close(self) -> None:
        self._rfile.close()


def _seldom(answer: _Answer) -> _Answer:
    """Limit `answer` to one caller at a time and to the rate above; other callers wait."""
    turn = threading.Lock()
    next_at = 0.0

    def paced(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        nonlocal next_at
        with turn:
            time.sleep(max(0.0, next_at - time.monotonic()))
            began, cpu = time.monotonic(), time.thread_time()
            made = answer(environ, start_response)
            next_at = began + max(1 / _ANSWERS_PER_S, (time.thread_time() - cpu) / _SHARE)
            return made

    return paced
