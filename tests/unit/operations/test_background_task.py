"""A background task of the projector goes on while a service is unavailable; what Postgres refuses is counted, so that
an alarm fires.
"""

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import structlog

from connectors.operations.background_task import watch
from connectors.operations.outgoing_webhooks.task import OutgoingWebhooks
from schemas.errors import MeterbridgeError, Unavailable
from schemas.reasons import POSTGRES_AWAY, POSTGRES_DENIED, POSTGRES_SCHEMA
from streams.runtime.kept_up import INTERRUPTED, kept_up
from tests.support.eventually import PATIENCE

ROUNDS = 3


async def count_failures(error: BaseException) -> tuple[int, list[str]]:
    """Run three rounds that raise the error: how often it was counted, and the lines of the log."""
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
        task = asyncio.ensure_future(watch(once, sleep, 1.0, waits="waits", refused=failed))
        await task
    return failures, [one["event"] for one in logs]


@pytest.mark.parametrize("reason", [POSTGRES_SCHEMA, POSTGRES_DENIED])
async def test_a_missing_table_or_right_is_counted_each_time_and_logged_once(reason: str) -> None:
    """Otherwise the task could do nothing for weeks, with a single log line about it."""
    assert await count_failures(Unavailable(reason, "UndefinedTableError 42P01")) == (ROUNDS, ["waits"])


@pytest.mark.parametrize("error", [Unavailable(POSTGRES_AWAY), MeterbridgeError("projection_behind")])
async def test_a_temporary_error_is_not_counted(error: MeterbridgeError) -> None:
    assert await count_failures(error) == (0, ["waits"])


@pytest.mark.parametrize("error", [KeyError("x"), asyncio.CancelledError()])
async def test_an_unexpected_error_ends_the_task_which_is_restarted_and_counted_once(
    error: BaseException,
) -> None:
    """Only `kept_up` does this. A library's own `CancelledError` is such an error: the process is not ending."""
    INTERRUPTED.of_role().pop("a test", None)
    done, rounds = asyncio.Event(), 0

    async def once() -> None:
        nonlocal rounds
        rounds += 1
        if rounds < ROUNDS:
            raise error
        done.set()

    async def work() -> None:
        await watch(once, asyncio.sleep, 60.0, waits="waits", refused=lambda: pytest.fail("counted twice"))

    with structlog.testing.capture_logs() as logs:
        kept = asyncio.ensure_future(kept_up("a test", work, 0.0))
        await asyncio.wait_for(done.wait(), 20 * PATIENCE)
        kept.cancel()
        await asyncio.wait({kept})
    assert INTERRUPTED.of_role()["a test"] == ROUNDS - 1
    assert [one["event"] for one in logs] == ["background_task_interrupted"] * (ROUNDS - 1)


class Webhooks(OutgoingWebhooks):
    """The first round raises an error of Meterbridge's own, and the second one waits."""

    looks = 0

    async def once(self) -> None:
        self.looks += 1
        if self.looks == 1:
            raise KeyError
        await asyncio.sleep(60)


async def test_webhooks_keep_their_connections_when_their_task_is_restarted_until_it_is_cancelled() -> None:
    """A closed httpx client cannot be opened again: no message would be sent until the process ends."""
    http = httpx.AsyncClient()
    needs: list[Any] = [None, None, SimpleNamespace(http=http), (), None]
    task = Webhooks(*needs)
    with pytest.raises(KeyError):
        await task.watch()
    assert not http.is_closed
    again = asyncio.ensure_future(task.watch())
    await asyncio.sleep(0)
    again.cancel()
    await asyncio.wait({again})
    assert (task.looks, http.is_closed) == (2, True)
