"""SIGTERM: from a process's first line to its last, it ends with code 0, in time."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from streams.runtime.shutdown import StopSignal
from tests.support.eventually import PATIENCE

#: What a process of its own does after the word has been said in a thread: `work` is the body of a coroutine.
PROGRAM = """
import asyncio, os, signal, threading, time
from streams.runtime import shutdown
from streams.runtime.shutdown import StopSignal, run_until_told
shutdown._LAST_LINE_S = 60.0  # its last line is read
word = StopSignal(stop_s={stop_s})
def ask(): os.kill(os.getpid(), signal.SIGTERM)
async def work(word):
{body}
raise SystemExit(run_until_told(work, word=word))
"""


def run_program(body: str, stop_s: float = 3600.0) -> tuple[int, str]:
    """Exit code and output. Raises: subprocess.TimeoutExpired: it waits for its work, which takes an hour or never ends."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    program = PROGRAM.format(body=lines, stop_s=stop_s)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20 * PATIENCE
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "body",
    [
        "threading.Timer(0.2, ask).start(); await asyncio.to_thread(time.sleep, 3600)",
        "threading.Timer(0.2, ask).start(); await asyncio.Event().wait()",
        "stop = word.begun(); ask(); await stop.wait(); raise ValueError('closing failed')",
        "stop = word.begun(); ask(); await stop.wait(); return 70",
        "stop = word.begun(); ask(); await stop.wait(); asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600); return 0",
        "word.begun(); word.idle(); threading.Timer(0.2, ask).start(); await asyncio.to_thread(time.sleep, 3600)",
    ],
    ids=["a start in a thread", "a start", "an error", "a code", "a thread", "idle"],
)
def test_after_sigterm_a_process_ends_with_0_at_once(body: str) -> None:
    """For every kind of wait and any error while it stops: work that is not durable is repeated by the next process. Its
    time limit is an hour here.
    """
    code, said = run_program(body)
    assert code == 0, said


@pytest.mark.parametrize(
    "waits", ["time.sleep(3600)", "await asyncio.Event().wait()"], ids=["a loop that stands", "work"]
)
def test_after_sigterm_work_that_hangs_is_cut_short(waits: str) -> None:
    code, said = run_program(f"word.begun(); threading.Timer(0.2, ask).start(); {waits}", stop_s=1.0)
    assert (code, "stop_cut_short" in said) == (0, True), said


@pytest.mark.parametrize(("body", "code"), [("return 70", 70), ("raise ValueError", 1)])
def test_without_sigterm_a_failure_is_a_failure(body: str, code: int) -> None:
    assert run_program(body)[0] == code


def test_an_error_ends_the_process_even_if_a_librarys_task_does_not_end() -> None:
    """In an earlier version closing the loop waited for this task, and a process that served nothing kept running."""
    body = """
async def endless():
    while True:
        try: await asyncio.sleep(3600)
        except asyncio.CancelledError: pass
task = asyncio.ensure_future(endless())
await asyncio.sleep(0)
raise ValueError('broken')"""
    code, said = run_program(body, stop_s=1.0)
    assert (code, "stop_cut_short" in said, "broken" in said) == (os.EX_SOFTWARE, True, True), said


@pytest.mark.parametrize(
    ("command", "code"), [("serve", 0), ("worker", 0), ("lago-sandbox", 0), ("replay", -signal.SIGTERM)]
)
def test_sigterm_is_handled_while_libraries_are_still_loading(command: str, code: int) -> None:
    """Only for commands that run until they are stopped: a replay that was stopped is not done."""
    program = f"import os, signal\nfrom connectors.cli.terminal import prepare\nprepare([{command!r}])\nos.kill(os.getpid(), signal.SIGTERM)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60 * PATIENCE).returncode == code


async def test_started_work_is_asked_to_stop_and_other_work_is_cancelled() -> None:
    codes: list[Any] = []
    word = StopSignal(leave=codes.append)
    stop = word.begun()
    word.hear()
    word.hear()
    await asyncio.wait_for(stop.wait(), 5 * PATIENCE)
    assert codes == []
    word.end(os.EX_SOFTWARE)
    assert codes == [0]
    other = StopSignal(leave=codes.append)
    other.hear()
    assert codes == [0, 0]


async def test_of_several_works_the_started_ones_are_asked_and_without_any_the_process_ends() -> None:
    codes: list[Any] = []
    word = StopSignal(leave=codes.append)
    stop = word.begun("meter")
    word.begun("sink")
    word.idle("meter")
    assert (word.has_begun("meter"), word.has_begun("sink")) == (False, True)
    word.hear()
    await asyncio.wait_for(stop.wait(), 5 * PATIENCE)
    assert codes == []
    word.idle("sink")
    assert word.begun("retry").is_set(), "it begins after the signal, beside work that is being finished"
    assert (word.has_begun("sink"), codes) == (True, [])
    none = StopSignal(leave=codes.append)
    none.begun("meter")
    none.idle("meter")
    none.hear()
    assert codes == [0]
