"""The wrapper for processes under fault, tested with processes that do nothing."""

import asyncio
import io
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.faults.procs import Process
from tests.support import guard
from tests.support.eventually import eventually

_OBEDIENT = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
)
_TICKING = "import time\nwhile True: print('tick', flush=True); time.sleep(0.01)"
_BROKEN = "import sys; sys.exit(7)"


def process(folder: Path, code: str, ready: Callable[[str], bool] = bool) -> Process:
    begun = time.monotonic()
    return Process("it", [sys.executable, "-c", code], {}, folder, lambda: time.monotonic() - begun, ready)


async def test_a_killed_process_is_gone_and_starts_again_only_when_told(tmp_path: Path) -> None:
    it = process(tmp_path, _OBEDIENT)
    it.start()
    await it.up()
    await it.kill()
    assert not it.alive
    assert [(d.code, d.cause) for d in it.deaths] == [(-9, "killed")]
    it.start()
    await it.up()
    await it.kill()


async def test_a_stop_returns_its_exit_code(tmp_path: Path) -> None:
    it = process(tmp_path, _OBEDIENT)
    it.start()
    await it.up()
    death = await it.terminate()
    assert death is not None
    assert (death.code, death.cause) == (0, "terminated")


async def test_a_process_that_ends_by_itself_is_restarted_and_counted(tmp_path: Path) -> None:
    it = process(tmp_path, _BROKEN)
    it.start()
    watching = asyncio.ensure_future(it.watch())
    await asyncio.to_thread(eventually, lambda: len(it.deaths) >= 2)
    watching.cancel()
    await it.kill()
    assert {(d.code, d.cause) for d in it.deaths} == {(7, "by itself")}


async def test_a_process_is_not_restarted_while_its_holder_is_busy_with_it(tmp_path: Path) -> None:
    it = process(tmp_path, _OBEDIENT)
    it.start()
    await it.up()
    watching = asyncio.ensure_future(it.watch())
    async with it.busy:
        await it.kill()
        await asyncio.sleep(0.4)
        assert not it.alive
    watching.cancel()


async def test_a_frozen_process_is_silent_and_continues_afterwards(tmp_path: Path) -> None:
    it = process(tmp_path, _TICKING)
    it.start()
    await it.up()
    freezing = asyncio.ensure_future(it.freeze(3600))
    await asyncio.sleep(0.2)
    said = it.log.stat().st_size
    await asyncio.sleep(0.2)
    assert it.log.stat().st_size == said
    freezing.cancel()  # however long the pauses took, the process was frozen until now
    await asyncio.to_thread(eventually, lambda: it.log.stat().st_size > said)
    await it.kill()


async def test_a_process_that_does_not_come_up_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    # Its last words are no sign of life, though it lives while they are read.
    it = process(tmp_path, "raise SystemExit('no port')", lambda said: "ready" in said)
    it.start()
    with pytest.raises(TimeoutError, match="no port"):
        await it.up(limit_s=0.1)
    await it.kill()


def test_threads_that_start_processes_at_once_have_one_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second guard that a number was not taken back from kills whatever process has it when the tests end."""
    both, guards = threading.Barrier(2), list[io.BytesIO]()

    def started(*_: object, **__: object) -> SimpleNamespace:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        guards.append(io.BytesIO())
        return SimpleNamespace(stdin=guards[-1])

    monkeypatch.setattr(guard, "_guard", cache(guard._guard.__wrapped__))
    monkeypatch.setattr(guard, "subprocess", SimpleNamespace(Popen=started, PIPE=None, DEVNULL=None))
    with ThreadPoolExecutor() as threads:
        list(threads.map(guard.release, (1, 2)))
    assert [given.getvalue().count(b"\n") for given in guards] == [2]
