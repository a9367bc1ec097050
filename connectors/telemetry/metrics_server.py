"""The Prometheus metrics over HTTP, from a thread of their own: they are answered while the event loop is busy.

No caller of this port has a credential, so each of them gets little: few connections, a short life, a small head, and few
answers a second. What a flood costs is a scrape; the process beside it goes on.
"""

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from io import BufferedIOBase
from socketserver import ThreadingMixIn
from typing import Any, Final, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app

from connectors.telemetry.worker_health import WorkerHealth
from schemas.errors import ConfigurationError
from schemas.reasons import FULL, FULL_OF_ONE, SILENT

#: Connections that are served at the same time, and those of one address. `connectors.http.unauthenticated` keeps twice as
#: many descriptors free: a connection that was cut holds its own until its thread has ended.
MOST, MOST_OF_ONE = 16, 8
#: From the accepted connection to the last byte of the answer. A Prometheus gives a scrape ten seconds, by default.
LIFE_S: Final = 10.0
#: Bytes of the request line and all headers.
MAX_HEAD: Final = 16_384
#: The answers take at most this share of one core, and no more are made in a second: all threads of a process share a core.
_SHARE, _ANSWERS_PER_S = 0.2, 20.0
_LOOK_EVERY_S: Final = 0.1
#: Connections that the kernel holds until they are accepted; they take no descriptor.
_BACKLOG: Final = 128
_THREAD_ENDS_S: Final = 1.0

_log = structlog.get_logger(__name__)
_Answer = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class MetricsServer(NamedTuple):
    """Where the metrics are served, and how to end it."""

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
        port: 0 = any free one.
        on_closed: hears why a connection was closed by us, one of `schemas.reasons.CONNECTION_CAUSES`; from any thread.
        health: answered at once, whatever the pace of scrapes; None = there are no probes.
        life_s: how long a connection may last.

    Raises:
        ConfigurationError: the port cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        server = _Server(family, str(address[0]), port, Places(MOST, MOST_OF_ONE, life_s, time.monotonic, on_closed))
    except OSError as error:
        raise ConfigurationError(
            "METRICS_PORT", f"METRICS_PORT {port} on {host} cannot be listened on: {error.strerror}"
        ) from error
    metrics = _seldom(make_wsgi_app(registry))
    server.set_app(metrics if health is None else health.beside(metrics))
    thread = threading.Thread(target=server.serve_forever, args=(_LOOK_EVERY_S,), name="metrics", daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(_THREAD_ENDS_S)

    return MetricsServer(server.server_port, stop)


class Places:
    """The connections that are open, oldest first; where there is no place for a new one, an older one is cut.

    A caller who opens many loses its own: the one that is cut is of the same address where that has `of_one`, and of the
    address with the most otherwise. Safe to call from any thread.

    Args:
        total: connections in all; twice as many threads may live.
        of_one: connections of one address.
        life_s: how long a connection may last.
        monotonic: seconds.
        on_closed: see `start_metrics_server`.
    """

    def __init__(
        self,
        total: int,
        of_one: int,
        life_s: float,
        monotonic: Callable[[], float],
        on_closed: Callable[[str], None] = lambda _cause: None,
    ) -> None:
        self._total = total
        self._of_one = of_one
        self._life_s = life_s
        self._monotonic = monotonic
        self._on_closed = on_closed
        self._lock = threading.Condition()
        self._open: dict[socket.socket, tuple[str, float]] = {}  # address, and when it must end
        self._threads = 0

    def take(self, connection: socket.socket, address: str) -> bool:
        """Whether a new connection may stay. One that may not is the caller's to close.

        Where too many threads live it waits a moment for one to end: what was cut ends at once, in most cases.
        """
        with self._lock:
            if not self._lock.wait_for(lambda: self._threads < 2 * self._total, _THREAD_ENDS_S):
                self._on_closed(FULL)
                return False
            counts = Counter(of for of, _ in self._open.values())
            if counts[address] >= self._of_one:
                self._cut_oldest(address, FULL_OF_ONE)
            elif len(self._open) >= self._total:
                self._cut_oldest(counts.most_common(1)[0][0], FULL)
            self._open[connection] = address, self._monotonic() + self._life_s
            self._threads += 1
            return True

    def leave(self, connection: socket.socket) -> None:
        """The thread of a connection that `take` let stay has ended."""
        with self._lock:
            self._open.pop(connection, None)
            self._threads -= 1
            self._lock.notify()

    def cut_late(self) -> None:
        """End every connection whose life is over."""
        with self._lock:
            now = self._monotonic()
            for connection in [one for one, (_, until) in self._open.items() if until <= now]:
                self._cut(connection, SILENT)

    def _cut_oldest(self, address: str, cause: str) -> None:
        self._cut(next(one for one, (of, _) in self._open.items() if of == address), cause)

    def _cut(self, connection: socket.socket, cause: str) -> None:
        """Its thread, which reads or writes, gets an error and closes it."""
        self._on_closed(cause)
        del self._open[connection]
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was faster
            return


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = _BACKLOG

    def __init__(self, family: int, host: str, port: int, places: Places) -> None:
        self.address_family = family
        self._places = places
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, where there is a place."""
        if not self._places.take(request, str(client_address[0])):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._places.leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request, then the connection is closed."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.leave(request)

    def service_actions(self) -> None:
        """Called every `_LOOK_EVERY_S`."""
        self._places.cut_late()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # the base class's
        """Called in an `except` block. A connection that broke, or that was cut, is not worth a line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            _log.warning("metrics_not_answered", error=type(error).__name__)


class _Handler(WSGIRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.rfile: Any = _Head(self.rfile)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's
        """Scrapes are no news."""


class _Head:
    """What a request is read from: a head that is larger than `MAX_HEAD`, or that is cut off, ends its connection."""

    def __init__(self, rfile: BufferedIOBase) -> None:
        self._rfile = rfile
        self._left = MAX_HEAD

    def readline(self, limit: int = -1) -> bytes:
        line = self._rfile.readline(min(self._left + 1, limit) if limit >= 0 else self._left + 1)
        self._left -= len(line)
        if self._left < 0 or not line:  # the base class would answer half a head
            raise ConnectionError("the head is too large, or not whole")
        return line

    def close(self) -> None:
        self._rfile.close()


def _seldom(answer: _Answer) -> _Answer:
    """`answer`, one caller at a time and no more often than the bounds above say; others wait."""
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
