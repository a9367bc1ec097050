"""A worker of several roles creates a child process for each, which shares its modules' memory and ends with it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from connectors.config.settings import Settings
from connectors.processes import supervisor
from connectors.processes import worker as worker_module
from connectors.processes.restart_pace import RestartPace
from schemas.errors import ConfigurationError, MeterbridgeError, TopicProblem, Unavailable
from tests.support.eventually import PATIENCE, eventually
from tests.support.ports import free_port

supervisor_run = supervisor._run
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a process's children are read in /proc")


def children(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kilobytes(pid: int, *names: str) -> int:
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    found = {words[0].rstrip(":"): int(words[1]) for words in lines}
    return sum(found[name] for name in names)


@pytest.fixture
def worker() -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of three roles that waits for a Kafka that does not answer."""
    environ = {"PATH": os.environ["PATH"], "METRICS_PORT": "0", "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    command = [sys.executable, "-m", "connectors", "worker", "--only", "meter,sink,retry"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: len(children(process.pid)) == 3, 60)
            yield process
        finally:
            process.kill()


def test_children_share_the_memory_of_the_modules_that_their_parent_has_loaded(
    worker: "subprocess.Popen[bytes]",
) -> None:
    """In an earlier version each child loaded all modules again: a worker took four times the memory of one process."""
    alone = kilobytes(worker.pid, "Anonymous")
    for child in children(worker.pid):
        eventually(lambda child=child: kilobytes(child, "Anonymous") > 0.8 * alone, 10)
        assert kilobytes(child, "Private_Dirty") < 0.6 * alone
    assert len(list(Path(f"/proc/{worker.pid}/task").iterdir())) == 1, "a fork copies only the thread that forks"


def test_a_child_that_ends_is_started_again_and_all_end_with_the_worker(worker: "subprocess.Popen[bytes]") -> None:
    before = children(worker.pid)
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(set(children(worker.pid)) - set(before)) == 1 and len(children(worker.pid)) == 3, 10)
    after = children(worker.pid)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(10 * PATIENCE) == 0
    assert not any(map(runs, {*before, *after}))


def test_a_worker_ends_at_once_if_a_metrics_port_of_its_roles_is_taken() -> None:
    """An earlier version never stopped starting its children again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environ = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "METRICS_PORT": str(port)}
        command = [sys.executable, "-m", "connectors", "worker", "--only", "meter,sink"]
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)
    assert ended.returncode == 2
    sentence = f"meterbridge: METRICS_PORT {port} on 127.0.0.1 cannot be used: Address already in use"
    assert ended.stderr.count(sentence) == 1
    assert "worker_restarted" not in ended.stderr + ended.stdout


class Ended:
    """A child that has ended with this exit code."""

    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode
        self.join = self.terminate = lambda *_: None
        self.is_alive = lambda: False


class Told:
    """What a child that cannot begin has sent."""

    def recv(self) -> tuple[type[TopicProblem], str, str]:
        return TopicProblem, "topics", "Topic a is missing"

    def close(self) -> None:
        pass


CANNOT = supervisor.CANNOT_BEGIN


@pytest.mark.parametrize(
    ("codes", "raises", "starts"), [([CANNOT], True, 1), ([70, CANNOT, CANNOT], False, 4), ([1, 1], False, 3)]
)
def test_only_a_child_that_cannot_begin_at_its_first_start_ends_the_worker(
    codes: list[int], raises: bool, starts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that was started before had the same settings and topics, so what is wrong with them now may pass."""
    started: list[int] = []

    def start(_: object) -> supervisor._Child:
        started.append(len(started))
        if len(started) > len(codes):
            os.kill(os.getpid(), signal.SIGTERM)
            return supervisor._Child(Ended(0), Told())  # type: ignore[arg-type]
        return supervisor._Child(Ended(codes[len(started) - 1]), Told())  # type: ignore[arg-type]

    monkeypatch.setattr(supervisor, "_start", start)
    monkeypatch.setattr(RestartPace, "wait_s", lambda *_: 0.0)
    before = [(number, signal.getsignal(number)) for number in supervisor.ASKED]
    try:
        if raises:
            with pytest.raises(TopicProblem, match="Topic a is missing"):
                supervisor.supervise({"meter": lambda _: 0})
        else:
            assert supervisor.supervise({"meter": lambda _: 0}) == 0
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    assert len(started) == starts


def test_the_children_of_a_killed_worker_end(worker: "subprocess.Popen[bytes]") -> None:
    left = children(worker.pid)
    worker.kill()
    worker.wait()
    eventually(lambda: not any(map(runs, left)), 10)


def test_a_child_that_gets_sigterm_before_it_has_handlers_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an earlier version it called its parent's handler, went on, and was killed nine seconds later."""
    monkeypatch.setattr(supervisor, "_run", lambda *_: (os.kill(os.getpid(), signal.SIGTERM), supervisor_run(*_)))
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        child = supervisor._start(lambda _: time.sleep(20) or 0).process
        child.join(10 * PATIENCE)
        assert child.exitcode == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "error", [ConfigurationError("PORT", "PORT 1 is used"), TopicProblem("topics", "Topic a is missing")]
)
def test_a_child_that_cannot_begin_says_nothing_itself_and_tells_its_parent_why(
    error: MeterbridgeError, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In an earlier version every role printed the same sentence."""
    from connectors.cli.worker import _reported

    async def run(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(worker_module, "_run_role", run)
    child = supervisor._start(partial(worker_module._run_child, {"meter": Settings()}, _reported))
    child.process.join(10 * PATIENCE)
    told = child.error()
    assert (type(told), str(told)) == (type(error), str(error))
    assert capfd.readouterr().err == ""


def test_another_error_of_a_child_is_logged_as_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """Its exit code is logged; a traceback would suggest a bug."""
    from connectors.cli.worker import _reported

    def run() -> int:
        raise Unavailable("postgres_schema", "the database has no tables")

    child = supervisor._start(lambda _: _reported(run))
    child.process.join(10 * PATIENCE)
    assert child.process.exitcode == 1
    assert child.error() is None
    assert "the database has no tables" in capfd.readouterr().err
