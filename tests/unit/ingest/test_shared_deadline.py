"""A deadline that many requests share: a block that takes too long times out, and no other block is affected."""

import asyncio

import pytest

from connectors.ingest.shared_deadline import SharedDeadline


async def test_a_block_that_takes_too_long_raises_a_timeout() -> None:
    with pytest.raises(TimeoutError), SharedDeadline(0.01):
        await asyncio.Event().wait()
    await asyncio.sleep(0)  # the task is not left cancelled


async def test_each_block_times_out_at_its_own_time_and_those_in_time_do_not() -> None:
    patience = SharedDeadline(0.1)
    loop = asyncio.get_running_loop()

    async def wait(begin_s: float, takes_s: float) -> float | None:
        """The seconds until it timed out; None: it ended."""
        await asyncio.sleep(begin_s)
        begun = loop.time()
        try:
            with patience:
                await asyncio.sleep(takes_s)
        except TimeoutError:
            return loop.time() - begun
        return None

    fast, first, second = await asyncio.gather(wait(0, 0), wait(0.02, 30), wait(0.06, 30))
    late = await wait(0, 30)
    assert fast is None
    for taken in (first, second, late):
        assert taken is not None
        assert taken > 0.09


async def test_a_cancellation_by_another_task_stays_a_cancellation() -> None:
    async def wait() -> None:
        with SharedDeadline(60):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_finished_block_is_forgotten() -> None:
    patience = SharedDeadline(60)
    with pytest.raises(ValueError, match="own"), patience:
        raise ValueError("own")
    assert not patience._waiting
