"""A worker of several roles creates a child process for each, which shares its modules' memory and ends with it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.config.settings import load_settings
from connectors.processes import supervisor
from connectors.processes import worker as worker_module
from schemas.errors import ConfigurationError
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


def test_a_worker_ends_if_a_metrics_port_of_its_roles_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier version never stopped starting its children again."""
    monkeypatch.setattr(worker_module, "STOP_S", 0.0)
    monkeypatch.setattr(worker_module, "supervise", lambda *_: pytest.fail("children were started"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = load_settings({"METRICS_PORT": str(port)})
        with pytest.raises(
            ConfigurationError, match=f"METRICS_PORT {port} on 127.0.0.1 cannot be used: Address already"
        ):
            worker_module.run_worker(settings, ("meter", "sink"))


def test_a_worker_waits_for_the_ports_of_a_worker_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed worker's roles have their ports until they end, and the next worker may begin before that."""
    still_taken = [9090]

    def refuse(setting: str, port: int, host: str) -> None:
        if port in still_taken:
            raise ConfigurationError(setting, f"{port} on {host}")

    monkeypatch.setattr(worker_module, "refuse_taken_port", refuse)
    monkeypatch.setattr(worker_module, "supervise", lambda *_: 0)
    monkeypatch.setattr(worker_module.time, "sleep", lambda _: still_taken.clear())
    assert worker_module.run_worker(load_settings({"METRICS_PORT": "9090"}), ("meter", "sink")) == 0
    assert not still_taken


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
        child = supervisor._start(lambda: time.sleep(20) or 0)
        child.join(10 * PATIENCE)
        assert child.exitcode == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_expected_error_of_a_child_is_logged_as_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """Its exit code is logged; a traceback would suggest a bug."""
    from connectors.cli.worker import _reported
    from schemas.errors import ConfigurationError

    def run() -> int:
        raise ConfigurationError("PORT", "port 1 cannot be listened on")

    child = supervisor._start(lambda: _reported(run))
    child.join(10 * PATIENCE)
    assert child.exitcode == 2
    assert capfd.readouterr().err.strip() == "meterbridge: port 1 cannot be listened on"
