"""Several roles in one worker process, each with its own port. An error that must end the process does so at once; an
error of a role that had worked does not.
"""

import subprocess
import sys

import pytest

from connectors.config.settings import load_settings
from connectors.processes import worker
from connectors.processes.restart_pace import RestartPace
from connectors.processes.worker import run_worker
from schemas.errors import ConfigurationError, TopicProblem
from streams.runtime.shutdown import StopSignal
from tests.support.eventually import PATIENCE

#: `meter` works, and as a client of Kafka may, it does not end when it is cancelled. `body` is what `sink` does.
PROGRAM = """
import asyncio, contextlib, os, signal, threading, time
from connectors.cli.worker import _reported
from connectors.config.settings import load_settings
from connectors.processes import worker
from schemas.errors import ConfigurationError, TopicProblem
from streams.runtime.shutdown import StopSignal
starts = 0
async def meter(word):
    word.begun("meter")
    threading.Thread(target=time.sleep, args=(3600,)).start()
    while not word.requested:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)
    return 0
async def sink(word):
    global starts
    starts += 1
    await asyncio.sleep(0.2)
{body}
async def run(settings, role, word, **_):
    return await (meter(word) if role == "meter" else sink(word))
worker._run_role = run
StopSignal.__init__.__defaults__ = (os._exit, 3600.0)  # what waits for a role that has nothing to finish is not cut short
raise SystemExit(worker.run_worker(load_settings({{"WORKER_PROCESSES": "one"}}), ["meter", "sink"], _reported))
"""


def _ran(body: str) -> tuple[int, str]:
    """Exit code, output. Raises: subprocess.TimeoutExpired: a thread or a role was waited for that sleeps for an hour."""
    program = PROGRAM.format(body="\n".join(f"    {line}" for line in body.strip().splitlines()))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20 * PATIENCE
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ("ConfigurationError('METRICS_PORT', 'METRICS_PORT 1 cannot be used')", 2, "METRICS_PORT 1 cannot be used"),
        ("TopicProblem('topics', 'Topic a is missing')", 1, "Topic a is missing"),
        ("ValueError('a bug')", 70, "worker_crashed"),
        ("asyncio.CancelledError()", 70, "worker_crashed"),
    ],
)
def test_a_role_that_cannot_start_ends_the_process_although_another_role_works(
    error: str, code: int, said: str
) -> None:
    ended, output = _ran(f"raise {error}")
    assert (ended, said in output) == (code, True), (ended, output)


@pytest.mark.parametrize("error", ["TopicProblem('topics', 'Topic a is missing')", "ValueError('a bug')"])
def test_any_error_of_a_role_that_had_worked_restarts_that_role(error: str) -> None:
    ended, output = _ran(
        f"word.begun('sink')\nword.idle('sink')\nif starts < 3: raise {error}\nos.kill(os.getpid(), signal.SIGTERM)\nawait asyncio.sleep(3600)"
    )
    assert ended == 0, output
    assert output.count("worker_crashed") == output.count("worker_restarted") == 2, output


def test_a_role_that_ends_without_an_error_is_restarted() -> None:
    ended, output = _ran(
        "word.begun('sink')\nword.idle('sink')\nif starts < 2: return 0\nos.kill(os.getpid(), signal.SIGTERM)\nawait asyncio.sleep(3600)"
    )
    assert (ended, output.count("worker_restarted")) == (0, 1), (ended, output)


@pytest.mark.parametrize("processes", ["one", "per_role"])
def test_a_worker_without_a_port_for_each_role_does_not_start(processes: str) -> None:
    """In an earlier version its last role was restarted endlessly while the others worked."""
    settings = load_settings({"METRICS_PORT": "65534", "WORKER_PROCESSES": processes})
    with pytest.raises(ConfigurationError, match="METRICS_PORT 65534 is too high: 3 roles"):
        run_worker(settings, ["meter", "sink", "retry"], lambda _run: 0)


async def test_a_role_alone_in_its_process_begins_again_if_a_topic_is_not_listed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker that has just started may not list all topics. A role that has not worked yet ends instead: someone must create them."""
    word, begins = StopSignal(), list[bool]()
    missing = TopicProblem("topics", "Topic a is missing")

    async def run(*_: object, **__: object) -> None:
        begins.append(word.has_ever_begun("meter"))
        if len(begins) == 2:
            raise missing
        word.begun("meter")
        if len(begins) == 1:
            raise missing

    monkeypatch.setattr(worker, "_run_until_crash", run)
    monkeypatch.setattr(RestartPace, "wait_s", lambda *_: 0.0)
    assert await worker._run_role(load_settings({}), "meter", word) == 0
    assert begins == [False, True, True]


async def _cannot(*_: object, **__: object) -> None:
    raise TopicProblem("topics", "Topic a is missing")


async def test_a_role_that_never_worked_ends_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_run_until_crash", _cannot)
    with pytest.raises(TopicProblem):
        await worker._run_role(load_settings({}), "meter", StopSignal())
