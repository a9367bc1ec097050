"""The roles started by Faust's own command, as users of Faust know it."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from pathlib import Path

import pytest

from streams.app import ROLES
from tests.support.calls import raw, slp
from tests.support.command import ended, environment_of
from tests.support.eventually import soon
from tests.support.stage import Stage

FAUST = Path(sys.executable).with_name("faust")
#: `SIGTERM` to the end.
STOP_S = 10.0


async def faust(stage: Stage, role: str, *words: str) -> Process:
    """Starts `faust -A connectors.processes.faust_apps:ROLE WORDS` with the stage's topics."""
    command = [str(FAUST), *app(role), *words]
    return await asyncio.create_subprocess_exec(
        *command, env=variables(stage), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
    )


def app(role: str) -> tuple[str, str]:
    return "-A", f"connectors.processes.faust_apps:{role}"


def variables(stage: Stage) -> dict[str, str]:
    return environment_of(stage, LAGO_API_KEY="a-key", WINDOW_SECONDS="1")


async def output_of(stage: Stage, role: str, *words: str) -> str:
    """The output of a Faust command; it ends by itself with code 0."""
    done = await ended(variables(stage), *app(role), *words, module="faust.__main__")
    assert done.code == 0, done.err
    return done.out


@pytest.mark.parametrize("role", ROLES)
async def test_faust_lists_the_agents_of_each_role(stage: Stage, role: str) -> None:
    topics = {"meter": stage.topics.raw, "sink": stage.topics.events, "retry": stage.topics.retry}
    said = await output_of(stage, role, "agents")
    assert all(topic in said for topic in ([topics[role]] if role in topics else stage.topics.projected))


async def test_faust_lists_none_of_our_tables(stage: Stage) -> None:
    """The state is in the ledgers (docs/adr/0004); the command must end all the same."""
    assert stage.topics.changelog not in await output_of(stage, "meter", "tables")


async def test_a_faust_worker_counts_calls_and_ends_with_code_0(stage: Stage) -> None:
    """It closes its partitions before Faust ends them: earlier it ended with code 70."""
    stage.map("acme", "org", "sub")
    stage.put([raw(0, slp(number, at_us=time.time_ns() // 1000)) for number in range(20)])
    process = await faust(stage, "meter", "worker", "--without-web")
    try:
        await soon(lambda: sum(int(e["properties"]["requests"]) for e in stage.values(stage.topics.events)) == 20, 30)
        process.send_signal(signal.SIGTERM)
        out, _ = await asyncio.wait_for(process.communicate(), STOP_S * 4)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, out.decode()
    assert b"worker_ended" not in out
