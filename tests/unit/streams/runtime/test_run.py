"""A role that cannot start, or crashes, is closed like one that stops, and its own error is reported."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from streams.runtime.run import RoleCrashed, run_role


class _App:
    """A Faust app that starts and crashes as configured, and records its end."""

    conf = SimpleNamespace(id="app")

    def __init__(self, start: BaseException | None, crash: Exception | None) -> None:
        self.crash_reason: Exception | None = None
        self.stopped = False
        self._start, self._crash = start, crash

    def finalize(self) -> None: ...

    async def maybe_start(self) -> None:
        if self._start is not None:
            raise self._start

    async def wait_until_stopped(self) -> None:
        if self._crash is None:
            await asyncio.Event().wait()
        self.crash_reason = self._crash

    async def stop(self) -> None:
        self.stopped = True


class _Role:
    def __init__(
        self, start: BaseException | None = None, crash: Exception | None = None, close: BaseException | None = None
    ) -> None:
        self.app: Any = _App(start, crash)
        self.closed = False
        self._close = close

    async def close(self) -> None:
        self.closed = True
        if self._close is not None:
            raise self._close


@pytest.mark.parametrize(
    ("role", "told"),
    [
        (_Role(start=KafkaConnectionError("refused")), "did not start"),
        (_Role(start=asyncio.CancelledError()), "did not start"),
        (_Role(crash=ValueError("broken")), "crashed"),
    ],
    ids=["start", "cancelled", "crash"],
)
async def test_the_apps_error_is_the_cause_of_ours_and_everything_is_closed(role: Any, told: str) -> None:
    with pytest.raises(RuntimeError, match=told) as failure:
        await run_role(role, asyncio.Event())
    assert isinstance(failure.value.__cause__, KafkaConnectionError | ValueError | asyncio.CancelledError)
    assert role.closed
    assert role.app.stopped


async def test_a_stop_signal_is_no_error() -> None:
    role: Any = _Role()
    stop = asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.set)
    await run_role(role, stop)
    assert role.closed
    assert role.app.stopped


@pytest.mark.parametrize("error", [OSError("no space left"), asyncio.CancelledError()])
async def test_an_app_whose_partitions_do_not_close_is_stopped_all_the_same(error: BaseException) -> None:
    """Otherwise it would stay in its group beside the restarted one, and keep partitions that it does not process."""
    role: Any = _Role(close=error)
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(type(error)):
        await run_role(role, stop)
    assert role.app.stopped


async def test_a_start_that_fails_while_the_role_stops_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """In an earlier version asyncio logged a traceback of it, later and without the role."""
    role: Any = _Role()
    stopping, stop = asyncio.Event(), asyncio.Event()

    async def start() -> None:
        await stopping.wait()
        raise KafkaConnectionError("refused")

    async def stop_app() -> None:
        stopping.set()
        await asyncio.sleep(0)

    role.app.maybe_start, role.app.stop = start, stop_app
    asyncio.get_running_loop().call_soon(stop.set)
    with pytest.raises(RoleCrashed, match="did not start") as failure:
        await run_role(role, stop)
    assert isinstance(failure.value.cause, KafkaConnectionError)
    del failure
    gc.collect()
    assert "never retrieved" not in caplog.text
