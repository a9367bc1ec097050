"""The child of a supervisor runs one role; whatever it is told, it never becomes a supervisor itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.config.settings import load_settings
from connectors.processes import worker
from connectors.processes.worker import CHILD
from schemas.errors import ConfigurationError
from tests.support.eventually import eventually
from tests.support.ports import free_port


def test_a_child_that_is_to_run_other_roles_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If `--only` were ignored, each child would start as many children as there are roles, and so on without end."""
    started: list[str] = []
    monkeypatch.setattr(worker, "_start", lambda role, _port: started.append(role))
    monkeypatch.setenv(CHILD, "sink")
    for roles in (["meter", "sink", "retry"], ["meter"], []):
        with pytest.raises(ConfigurationError, match="a child that runs sink alone"):
            worker.run_worker(load_settings({}), roles)
    assert started == []


@pytest.mark.skipif(sys.platform != "linux", reason="a process's children are read in /proc")
def test_a_supervisor_marks_its_children_and_they_refuse_in_one_sentence() -> None:
    environ = {"PATH": os.environ["PATH"], "METRICS_PORT": "0", "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    command = [sys.executable, "-m", "connectors", "worker"]
    refused = subprocess.run(
        command, env={**environ, CHILD: "sink"}, capture_output=True, text=True, check=False, timeout=60
    )
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
    with subprocess.Popen([*command, "--only", "sink,retry"], env=environ, stderr=subprocess.DEVNULL) as supervisor:

        def marked() -> set[str]:
            children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text().split()
            try:
                variables = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children]
            except ProcessLookupError:  # between fork and exec it has none
                return set()
            return {one.decode() for all_of_one in variables for one in all_of_one if one.startswith(CHILD.encode())}

        try:
            eventually(lambda: marked() == {f"{CHILD}=sink", f"{CHILD}=retry"}, 30)
        finally:
            supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(10) == 0
