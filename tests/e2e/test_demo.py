"""`meterbridge demo` in a new environment: green if everything is billed, red if Lago loses a single batch."""

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import web

from connectors.demo.view import NEXT_EXACT, NEXT_WRONG
from connectors.lago_sandbox import create_sandbox
from tests.support.eventually import PATIENCE

GREEN = re.compile(
    r"GREEN  (\d+) calls in = \1 calls billed, ([\d.]+) USD in = \2 USD billed \((\d+) Lago posts instead of \1\)"
)
LIMIT_S = 90.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def started_demo(folder: Path, *options: str, **environ: str) -> AsyncIterator[Process]:
    """The command in its own environment; `folder` is for its temporary files."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "connectors", "demo", *options),
        env={"PATH": os.environ.get("PATH", ""), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", **environ},
        cwd=Path(__file__).parents[2],
        stdout=PIPE,
        stderr=STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def played(folder: Path, *options: str, **environ: str) -> tuple[int, list[str]]:
    """Exit code and output lines."""
    async with started_demo(folder, *options, **environ) as process:
        said, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert process.returncode is not None
    return process.returncode, said.decode().splitlines()


def left_in(folder: Path) -> list[Path]:
    """The files left in the folder."""
    return list(folder.iterdir())


def at_work_in(folder: Path) -> list[str]:
    """Processes whose working directory is, or was, below `folder`."""
    if not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if str((process / "cwd").readlink()).startswith(str(folder)):
                    found.append(process.name)
    return found


@asynccontextmanager
async def forgetful_lago() -> AsyncIterator[str]:
    """A Lago that answers one batch like every other, and loses it."""
    forgotten: list[int] = []

    @web.middleware
    async def forgetting(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path == "/api/v1/events/batch" and not forgotten:
            events = json.loads(await request.read())["events"]
            forgotten.append(len(events))
            return web.json_response({"events": events})
        return await handler(request)

    app = create_sandbox(api_key="a-key")
    app.middlewares.append(forgetting)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
    assert forgotten


async def test_the_demo_ends_green_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """With customers mapped late, repeats, cache hits and failures; independent of the caller's own settings."""
    elsewhere = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "TOPIC_PREFIX": "x.", "LAGO_API_URL": "http://127.0.0.1:1"}
    code, lines = await played(tmp_path, "--rate", "40", "--seconds", "4", **elsewhere, HTTP_PROXY="http://127.0.0.1:1")
    result = GREEN.fullmatch(lines[-3])
    assert lines[-2:] == list(NEXT_EXACT)
    assert result, "\n".join(lines)
    assert code == 0
    assert 100 < int(result[1]) <= 160
    assert int(result[3]) < int(result[1])
    assert any("held: cobalt-batch" in line for line in lines)
    assert any("repeats recognised" in line for line in lines)
    assert not left_in(tmp_path)


async def test_a_batch_that_lago_loses_makes_the_demo_red(tmp_path: Path) -> None:
    async with forgetful_lago() as lago:
        code, lines = await played(tmp_path, "--rate", "40", "--seconds", "3", "--lago", lago, LAGO_API_KEY="a-key")
    assert lines[-3].startswith("RED  "), "\n".join(lines)
    assert lines[-2:] == list(NEXT_WRONG)
    assert code == 1
    (folder,) = left_in(tmp_path)
    assert f"The logs are in {folder}" in lines
    assert (folder / "worker.log").exists()


async def test_ctrl_c_stops_it_and_everything_it_started(tmp_path: Path) -> None:
    async with started_demo(tmp_path, "--rate", "40", "--seconds", "60") as process:
        assert process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            while b"calls arrive" not in await process.stdout.readline():
                assert process.returncode is None
        process.send_signal(signal.SIGINT)
        said, _ = await asyncio.wait_for(process.communicate(), 15 * PATIENCE)
    assert process.returncode == 130
    assert said.decode().splitlines()[-1] == "Interrupted: everything is stopped."
    assert not left_in(tmp_path)
    assert not at_work_in(tmp_path)


async def test_an_own_lago_needs_its_key(tmp_path: Path) -> None:
    code, lines = await played(tmp_path, "--lago", "http://127.0.0.1:1")
    assert code == 2
    assert "LAGO_API_KEY" in lines[-1]
    assert not left_in(tmp_path)
