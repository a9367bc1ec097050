"""What is forked for a test is a process of its own, as one that was started would be."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process is started again")


def started(words: list[str], **environ: str) -> tuple[int, str, str, warm.Started]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = warm.start([sys.executable, "-m", *words], environ, out.fileno(), err.fileno(), new_session=True)
        code = process.wait(60)
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode(), process


def test_it_has_our_words_and_environment_alone_and_a_session_of_its_own() -> None:
    code, out, _, process = started(["tests.support.about_me", "a", "--b"], ONLY="this")
    assert isinstance(process, warm.Forked)
    words, environ, session, parent = out.splitlines()
    assert (code, words, environ) == (3, "['a', '--b']", "{'ONLY': 'this'}")
    assert (int(session), int(parent)) == (process.pid, os.getpid())


def test_two_after_another_differ_in_what_python_draws_at_a_start() -> None:
    """A worker and its successor must not agree by luck: the order of a set is another in each process."""
    assert len({started(["tests.support.about_me", "hash"])[1] for _ in range(4)}) == 2


def test_a_command_ends_as_it_would_when_started() -> None:
    forked = started(["connectors", "dlq", "nonsense"])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = [sys.executable, "-m", "connectors", "dlq", "nonsense"]
        again = warm.start_anew(command, {}, out.fileno(), err.fileno())
        code = again.wait(60)
        err.seek(0)
        assert forked[:3] == (code, "", err.read().decode())


def test_it_can_be_killed_and_leaves_nothing() -> None:
    with tempfile.TemporaryFile() as out:
        command = [sys.executable, "-m", "connectors", "lago-sandbox", "--port", "0"]
        process = warm.start(command, {}, out.fileno(), out.fileno())
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
    assert not Path(f"/proc/{process.pid}").exists()


def test_what_python_reads_at_a_start_needs_a_start() -> None:
    *_, process = started(["tests.support.about_me"], PYTHONHASHSEED="4711")
    assert isinstance(process, subprocess.Popen)
