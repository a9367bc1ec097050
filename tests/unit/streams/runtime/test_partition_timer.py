"""The timer of an app's partitions: if it ends in a way that Faust ignores, the app ends; otherwise nothing would be
sealed any more.
"""

import asyncio

import pytest

from streams.runtime.faust_transport import App


async def test_a_tick_that_a_library_cancelled_ends_the_app() -> None:
    app = App("ticks", broker="kafka://localhost:1", store="memory://")

    async def work() -> None:
        raise asyncio.CancelledError

    app.every_tick(work)
    await app._tick()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="a tick was cancelled"):
        await app._tick()
