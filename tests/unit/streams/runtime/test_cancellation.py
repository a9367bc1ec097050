"""Tasks are ended, and one that does not end is named."""

import asyncio

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
