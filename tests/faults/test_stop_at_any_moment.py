"""SIGTERM at any moment, also during the start, ends every process with code 0 within ten seconds; and a process that
starts while Kafka is unavailable waits for it.

The time is counted from when the process can handle SIGTERM: before that its interpreter is not up yet. A process that
is stopped while its libraries load has its own interpreter; the others are forked (tests/support/warm.py).
"""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import guard, warm
from tests.support.eventually import PATIENCE, eventually, soon
from tests.support.kafka import Kafka, MavenKafka
from tests.support.log_lines import log_lines
from tests.support.ports import free_port
from tests.support.stage import Stage
from tests.support.wire import wire

pytestmark = pytest.mark.faults

#: On a machine that has nothing else to do.
LIMIT_S = 10.0
#: After SIGTERM is heard: while the libraries load, and when the process waits for its neighbours.
LOADING_S, WAITING_S = (0.0, 0.7), 2.0
ROLES = ("meter", "sink", "retry", "project")
COMMANDS: dict[str, tuple[str, ...]] = {
    "serve": ("serve",),
    "ingress": ("serve", "--only", "webhooks"),
    "api": ("serve", "--only", "api"),
    "worker": ("worker",),
    "worker-one": ("worker",),
    **{role: ("worker", "--only", role) for role in ROLES},
    "sandbox": ("lago-sandbox", "--port", "0"),
}
#: Further variables of a command.
VARIABLES: dict[str, dict[str, str]] = {"worker-one": {"WORKER_PROCESSES": "one"}}
#: Log events of a process that waits for Kafka: at its start, and in a table.
WAITS = ("waiting_for_kafka", "follower_interrupted")
_SIGTERM_BIT = 1 << (signal.SIGTERM - 1)


@dataclass
class Running:
    """A running command, and its output."""

    process: warm.Started
    log: Path

    def hears(self) -> bool:
        """Whether it has a handler for SIGTERM."""
        found = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{self.process.pid}/status").read_text(), re.MULTILINE)
        return found is not None and bool(int(found[1], 16) & _SIGTERM_BIT)

    def family(self) -> list[int]:
        """Return the children of the process."""
        return [int(n) for n in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines about an event."""
        return [line for line in log_lines(self.log) if line["event"] == name]

    def told_to_stop(self) -> int:
        """Send SIGTERM; returns its exit code. Raises: subprocess.TimeoutExpired: it does not end in time."""
        children = self.family()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(LIMIT_S * PATIENCE)
        # A library may start a short program while it loads, which ends some milliseconds after its parent.
        eventually(lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()], LIMIT_S)
        return code


@contextmanager
def running(name: str, folder: Path, environ: Mapping[str, str], *, forked: bool = True) -> Iterator[Running]:
    """Yield a command in this environment, once it can handle SIGTERM; killed at the end if it still runs.

    `forked`: its modules are loaded when it starts.
    """
    ports = {
        "PORT": "0",
        "API_PORT": "0",
        "METRICS_PORT": "0",
        "ALLOW_UNAUTHENTICATED": "1",
        "LITELLM_MASTER_KEY": "sk-master",
    }
    log = folder / f"{name}-{time.monotonic_ns()}.log"
    command, variables = [sys.executable, "-m", "connectors", *COMMANDS[name]], {"PATH": os.environ["PATH"], **ports}
    variables |= VARIABLES.get(name, {})
    with log.open("wb") as result:
        start = warm.start if forked else warm.start_anew
        process = start(command, {**variables, **environ}, result.fileno(), result.fileno())
    guard.adopt(process.pid, signal.SIGKILL, Path("/nonexistent"))
    try:
        one = Running(process, log)
        eventually(one.hears, 30)
        yield one
    finally:
        process.kill()
        process.wait()
        guard.release(process.pid)


@contextmanager
def unreachable(*, silent: bool) -> Iterator[int]:
    """Yield a port without a listener, or one where connections are accepted and never answered."""
    if not silent:
        with socket.socket() as kept:  # another run of tests may start a server on any free port
            kept.bind(("127.0.0.1", free_port()))
            yield kept.getsockname()[1]
        return
    with socket.create_server(("127.0.0.1", 0), backlog=64) as ear:
        yield ear.getsockname()[1]


def test_an_unreachable_port_is_not_given_to_another_server() -> None:
    """A meter that reached the Kafka of another test run there would end by itself, because its topics are missing."""
    with unreachable(silent=False) as port, socket.socket() as other, socket.socket() as client:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", port))


def away(port: int) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
        "DATABASE_URL": f"postgresql://u:p@127.0.0.1:{port}/d",
        "LAGO_API_URL": f"http://127.0.0.1:{port}",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="whether a process handles a signal is read in /proc")
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_a_process_that_waits_for_its_servers_ends_with_0(tmp_path: Path, name: str, silent: bool) -> None:
    """No server answers: from the first moment on, while libraries load, and while the broker is waited for.

    Libraries load before a neighbour is asked, so how it does not answer makes no difference there.
    """
    moments_s = (WAITING_S,) if silent else (*LOADING_S, WAITING_S)
    with unreachable(silent=silent) as port:

        def stopped(moment_s: float) -> tuple[float, int, str]:
            with running(name, tmp_path, away(port), forked=moment_s == WAITING_S) as one:
                time.sleep(moment_s)
                assert one.process.poll() is None, one.log.read_text()[-2000:]
                return moment_s, one.told_to_stop(), one.log.read_text()[-2000:]

        with ThreadPoolExecutor() as at_once:
            ends = list(at_once.map(stopped, moments_s))
    assert [end[:2] for end in ends] == [(moment_s, 0) for moment_s in moments_s], ends


@contextmanager
def all_of(names: tuple[str, ...], folder: Path, environ: Mapping[str, str]) -> Iterator[dict[str, Running]]:
    """Several commands together."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(running(name, folder, environ)) for name in names}


def at(bootstrap: str, prefix: str, database_url: str) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "TOPIC_PREFIX": prefix,
        "KAFKA_PARTITIONS": "2",
        "DATABASE_URL": database_url,
        "LAGO_API_URL": f"http://127.0.0.1:{free_port()}",
    }


def works(one: Running) -> bool:
    """Whether it has started its work, and has not ended."""
    assert one.process.poll() is None, one.log.read_text()[-2000:]
    return bool(one.events("partitions_opened") or one.events("ready"))


async def test_a_process_that_starts_while_kafka_is_unavailable_waits_for_it_and_starts(
    tmp_path: Path, database: str
) -> None:
    """It waits longer than any library does; the log has one line with the address and its setting."""
    broker = await asyncio.to_thread(MavenKafka)
    try:
        await asyncio.to_thread(Stage, broker.bootstrap, "w.")
        await asyncio.to_thread(broker.kill)
        with all_of((*ROLES, "worker-one", "serve"), tmp_path, at(broker.bootstrap, "w.", database)) as started:
            begun = time.monotonic()
            for one in started.values():
                await soon(lambda one=one: one.events("waiting_for_kafka"), 30)  # type: ignore[misc]
            await asyncio.sleep(25.0)
            for name, one in started.items():
                assert one.process.poll() is None, (name, one.log.read_text()[-2000:])
                awaited = one.events("waiting_for_kafka")
                assert {line["address"] for line in awaited} == {f"KAFKA_BOOTSTRAP_SERVERS={broker.bootstrap}"}, name
                roles = len(ROLES) if name == "worker-one" else 1
                assert len(awaited) <= roles * (1 + (time.monotonic() - begun) / 60), name
                assert len(one.log.read_text().splitlines()) < 20, one.log.read_text()
            await asyncio.to_thread(broker.restart)
            for one in started.values():
                await soon(lambda one=one: works(one), 30)  # type: ignore[misc]
            ends = await asyncio.gather(*(asyncio.to_thread(one.told_to_stop) for one in started.values()))
        assert ends == [0] * len(started)
    finally:
        broker.stop()


@pytest.mark.parametrize("name", ["meter", "sink"])
async def test_a_kafka_that_becomes_unavailable_while_a_role_starts_is_waited_for(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, name: str
) -> None:
    """The topics were read, and the first producer or consumer finds no broker: earlier `Unable to bootstrap` ended the
    role with 70.
    """
    host, _, port = kafka.bootstrap.rpartition(":")
    del host
    await asyncio.to_thread(Stage, kafka.bootstrap, topic_prefix)
    waited = False
    # A fast role may have found the broker before the connection is cut, and only a table waits, or nothing: then the start
    # is repeated.
    for stopped_while_away in (True, *[False] * 5):
        async with wire(int(port)) as way:
            # Kafka names its own address in its answers: a client of the relay is disconnected when it asks again.
            with running(name, tmp_path, at(f"127.0.0.1:{way.port}", topic_prefix, "")) as one:
                await soon(lambda one=one: one.events("worker_started"), 30)  # type: ignore[misc]
                await way.cut()
                if stopped_while_away:
                    await asyncio.sleep(0.5)  # the signal arrives during a wait
                else:
                    await soon(lambda one=one: any(map(one.events, WAITS)) or works(one), 30)  # type: ignore[misc]
                    waited = bool(one.events("waiting_for_kafka"))
                assert one.process.poll() is None, one.log.read_text()[-2000:]
                if not stopped_while_away:
                    await way.join()
                    await soon(lambda one=one: works(one), 30)  # type: ignore[misc]
                assert await asyncio.to_thread(one.told_to_stop) == 0, one.log.read_text()[-2000:]
        if waited:
            break
    assert waited, "the role never had to wait"


def test_a_start_may_be_stopped_at_any_moment(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, postgres_url: str
) -> None:
    """Kafka and Postgres are available: topics are read, the group is joined, ledgers open, Faust recovers."""
    Stage(kafka.bootstrap, topic_prefix)
    environ = at(kafka.bootstrap, topic_prefix, postgres_url)
    for turn, name in enumerate(
        ("meter", "worker-one", "serve", "worker", "sink", "worker-one", "project", "meter", "worker-one")
    ):
        with running(name, tmp_path, environ, forked=False) as one:
            time.sleep(0.4 + 0.45 * turn)
            assert one.process.poll() is None, one.log.read_text()[-2000:]
            assert one.told_to_stop() == 0, (name, turn, one.log.read_text()[-3000:])
