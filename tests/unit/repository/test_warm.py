"""A process that is forked for a test behaves like one that was started."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.eventually import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process is started again")


def started(words: list[str], **environ: str) -> tuple[int, str, str, warm.Started]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = warm.start([sys.executable, "-m", *words], environ, out.fileno(), err.fileno(), new_session=True)
        code = process.wait(60 * PATIENCE)
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode(), process


def test_a_forked_process_has_only_the_given_arguments_and_environment_and_its_own_session() -> None:
    code, out, _, process = started(["tests.support.about_me", "a", "--b"], ONLY="this")
    assert isinstance(process, warm.Forked)
    words, environ, session, parent = out.splitlines()
    assert (code, words, environ) == (3, "['a', '--b']", "{'ONLY': 'this'}")
    assert (int(session), int(parent)) == (process.pid, os.getpid())


def test_two_processes_have_different_hash_seeds() -> None:
    """A worker and its successor must not agree by luck: the order of a set differs between processes."""
    assert len({started(["tests.support.about_me", "hash"])[1] for _ in range(4)}) == 2


def test_a_command_ends_as_if_it_had_been_started() -> None:
    forked = started(["connectors", "dlq", "nonsense"])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = [sys.executable, "-m", "connectors", "dlq", "nonsense"]
        again = warm.start_anew(command, {}, out.fileno(), err.fileno())
        code = again.wait(60 * PATIENCE)
        err.seek(0)
        assert forked[:3] == (code, "", err.read().decode())


def test_a_forked_process_can_be_killed_and_leaves_nothing_behind() -> None:
    with tempfile.TemporaryFile() as out:
        command = [sys.executable, "-m", "connectors", "lago-sandbox", "--port", "0"]
        process = warm.start(command, {}, out.fileno(), out.fileno())
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.kill()
        assert process.wait(10 * PATIENCE) == -signal.SIGKILL
    assert not Path(f"/proc/{process.pid}").exists()


def test_variables_that_python_reads_at_its_start_need_a_real_start() -> None:
    *_, process = started(["tests.support.about_me"], PYTHONHASHSEED="4711")
    assert isinstance(process, subprocess.Popen)
