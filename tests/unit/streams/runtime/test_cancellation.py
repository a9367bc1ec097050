"""Tasks are ended, and one that does not end is named."""

import asyncio

import pytest
from structlog.testing import capture_logs

from streams.runtime.cancellation import end


async def test_a_task_that_outlives_its_end_is_logged() -> None:
    leave = asyncio.Event()

    async def stubborn() -> None:
        while not leave.is_set():
            try:
                await leave.wait()
            except asyncio.CancelledError:
                continue

    async def obedient() -> None:
        await leave.wait()

    tasks = [asyncio.ensure_future(work()) for work in (stubborn, obedient)]
    await asyncio.sleep(0)
    with capture_logs() as logs:
        await end(tasks, 0.05)
    leave.set()
    await tasks[0]
    assert [(line["event"], line["task"].rpartition(".")[2]) for line in logs] == [("task_left_running", "stubborn")]
    assert tasks[1].cancelled()


async def test_an_end_within_a_task_that_is_ended_goes_on_when_that_task_is_cancelled_again() -> None:
    """The task inside hears only the second cancellation. In an earlier version it outlived both, and nothing named it."""
    heard = list[int]()

    async def deaf_once() -> None:
        while len(heard) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append(1)

    async def outside() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await end({inside}, 3600)

    inside = asyncio.ensure_future(deaf_once())
    task = asyncio.ensure_future(outside())
    await asyncio.sleep(0)
    await end({task}, 0.05)
    assert (len(heard), inside.done()) == (2, True)
    with pytest.raises(asyncio.CancelledError):
        await task
