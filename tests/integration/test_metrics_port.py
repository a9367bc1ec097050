"""The metrics port and unauthenticated clients: for any connections and requests Prometheus is answered and the process
continues.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge

from connectors.http.unauthenticated_limits import FULL, FULL_OF_ONE
from connectors.telemetry.metrics_server import MAX_HEAD, MOST, MOST_OF_ONE, MetricsServer, Places, start_metrics_server
from tests.support.eventually import PATIENCE

LIFE_S = 1.0
_LARGE = 16 << 20
HEAD = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
#: A process with the port, which may have 72 descriptors: the port's 32, its backlog, and its own few.
PROCESS = """
import sys, time
from prometheus_client import CollectorRegistry, Gauge
from connectors.http.unauthenticated_limits import FULL, FULL_OF_ONE
from connectors.telemetry.metrics_server import start_metrics_server
from tests.support.eventually import PATIENCE
registry = CollectorRegistry()
for number in range(300):
    Gauge(f"a_gauge_{number}", "One of many.", registry=registry)
print(start_metrics_server(registry, "127.0.0.1", 0).port, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def process() -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Yield the port of the process, and the process."""
    command = ["prlimit", "--nofile=72", sys.executable, "-c", PROCESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        yield int(started.stdout.readline()), started
        started.kill()


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    """A server whose connections live for a second, and whose answer is larger than any buffer."""
    registry = CollectorRegistry()
    Gauge("large", "x" * _LARGE, registry=registry)
    served = start_metrics_server(registry, "127.0.0.1", 0, life_s=LIFE_S)
    yield served
    served.stop()


def connection(port: int, said: bytes = b"", address: str = "127.0.0.2") -> socket.socket:
    """A raw connection from `address` that sends this."""
    created = socket.create_connection(("127.0.0.1", port), 5 * PATIENCE, source_address=(address, 0))
    created.sendall(said)
    return created


def scraped(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=5 * PATIENCE).text


def test_five_hundred_silent_connections_take_few_descriptors_and_prometheus_is_answered(
    process: tuple[int, "subprocess.Popen[str]"],
) -> None:
    """Earlier each had a descriptor and a thread without a time limit: a thousand of them stopped a worker."""
    port, started = process
    with ExitStack() as stack:
        for number in range(500):
            stack.enter_context(connection(port, HEAD, f"127.0.0.{2 + number % 8}"))
            if number % 100 == 99:
                assert "a_gauge_299 0.0" in scraped(port)
        assert len(list(Path(f"/proc/{started.pid}/fd").iterdir())) <= 2 * MOST + 8


def test_scrapes_without_a_pause_take_a_small_share_of_a_core(process: tuple[int, "subprocess.Popen[str]"]) -> None:
    """Writing the metrics holds the lock that the event loop needs, too."""
    port, started = process
    until = time.monotonic() + 3

    def ask() -> None:
        while time.monotonic() < until:
            with connection(port, HEAD + b"\r\n") as one:
                while one.recv(1 << 16):
                    pass

    before = _cpu_s(started.pid)
    asking = [threading.Thread(target=ask) for _ in range(MOST_OF_ONE)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert _cpu_s(started.pid) - before < 3 * 0.4


def _cpu_s(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / 100  # USER_HZ


def test_a_slow_head_is_closed(server: MetricsServer) -> None:
    """It stays within one header: of a hundred of them `http.server` itself would refuse the next."""
    deadline = time.monotonic() + 10 * LIFE_S * PATIENCE
    with connection(server.port, HEAD) as one, pytest.raises(ConnectionError):  # a reset or a broken pipe
        while time.monotonic() < deadline:
            one.sendall(b"X")
            time.sleep(0.05)


def test_a_connection_that_does_not_read_its_answer_is_closed(server: MetricsServer) -> None:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", server.port))
        one.sendall(HEAD + b"\r\n")
        time.sleep(3 * LIFE_S)  # nothing can be observed from here without reading
        one.settimeout(5 * PATIENCE)
        received = 0
        with pytest.raises(ConnectionError):  # a reset; or an end before the whole answer
            while piece := one.recv(1 << 16):
                received += len(piece)
            assert received < _LARGE
            raise ConnectionError


def test_a_head_that_is_too_large_closes_its_connection() -> None:
    """At once: the life of a connection is an hour here."""
    served = start_metrics_server(CollectorRegistry(), "127.0.0.1", 0, life_s=3600)
    try:
        with (
            connection(served.port, HEAD) as one,
            pytest.raises(ConnectionError),
        ):  # a reset; or an end without an answer
            one.sendall(b"X-A: " + b"a" * 2 * MAX_HEAD + b"\r\n\r\n")
            assert one.recv(1) == b""
            raise ConnectionError
    finally:
        served.stop()


def test_of_an_address_with_many_connections_the_oldest_is_closed_and_others_keep_theirs() -> None:
    with ExitStack() as stack:

        def pair() -> tuple[socket.socket, socket.socket]:
            ours, theirs = socket.socketpair()
            return stack.enter_context(ours), stack.enter_context(theirs)

        def is_cut(theirs: socket.socket) -> bool:
            theirs.setblocking(False)
            try:
                return theirs.recv(1) == b""
            except BlockingIOError:
                return False

        closed: list[str] = []
        places = Places(4, 2, 10.0, lambda: 0.0, closed.append)
        opened = [pair() for _ in range(6)]
        for (ours, _), address in zip(opened, ("a", "b", "b", "b", "c", "a"), strict=True):
            assert places.take(ours, address)
        # b's first made room for b's third. Then all four places were taken, and b, who had the most, lost its second.
        assert [is_cut(theirs) for _, theirs in opened] == [False, True, True, False, False, False]
        assert places.take(pair()[0], "d")
        assert [is_cut(theirs) for _, theirs in opened] == [True, True, True, False, False, False], "a had two"
        # Cut connections whose threads do not end still count: beyond twice the places a new one is refused.
        assert places.take(pair()[0], "e")
        assert not places.take(pair()[0], "f")
        assert closed == [FULL_OF_ONE, FULL, FULL, FULL, FULL]
        places.leave(opened[1][0])
        assert places.take(pair()[0], "f")
