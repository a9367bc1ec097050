"""A task beside the projector goes on after every error; what does not pass by itself is counted, and so rings an alarm."""

import asyncio

import pytest
import structlog

from connectors.operations.background_task import watch
from schemas.errors import MeterbridgeError, Unavailable
from schemas.reasons import POSTGRES_AWAY, POSTGRES_DENIED, POSTGRES_SCHEMA

ROUNDS = 3


async def counted(error: BaseException) -> tuple[int, list[str]]:
    """After three rounds that raise it: how often it was counted, and the lines of the log."""
    failures = rounds = 0

    async def once() -> None:
        raise error

    def failed() -> None:
        nonlocal failures
        failures += 1

    async def sleep(_seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == ROUNDS:
            task.cancel()
            await asyncio.sleep(0)

    with structlog.testing.capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        task = asyncio.ensure_future(watch(once, sleep, 1.0, waits="waits", failed="failed", on_failure=failed))
        await task
    return failures, [one["event"] for one in logs]


@pytest.mark.parametrize("reason", [POSTGRES_SCHEMA, POSTGRES_DENIED])
async def test_a_missing_table_or_right_is_counted_each_time_and_said_once(reason: str) -> None:
    """Else the task does nothing for weeks, and one line of the log tells of it."""
    assert await counted(Unavailable(reason, "UndefinedTableError 42P01")) == (ROUNDS, ["waits"])


@pytest.mark.parametrize("error", [Unavailable(POSTGRES_AWAY), MeterbridgeError("projection_behind")])
async def test_what_passes_by_itself_is_not_counted(error: MeterbridgeError) -> None:
    assert await counted(error) == (0, ["waits"])


@pytest.mark.parametrize("error", [KeyError("x"), asyncio.CancelledError()])
async def test_an_error_that_no_one_expected_is_counted_and_said_each_time(error: BaseException) -> None:
    """A library's own `CancelledError` is one: the process is not ending."""
    assert await counted(error) == (ROUNDS, ["failed"] * ROUNDS)
