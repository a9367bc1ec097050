"""Waiting for a table leaves nothing behind, whenever it is given up."""

import asyncio
import time

from schemas.customers import CustomerRecord
from streams.followers import Follower


async def test_a_wait_that_is_given_up_just_as_its_time_runs_out_is_given_up_and_nothing_else() -> None:
    """A lane that closes gives up its waits; an error of theirs would end the process."""
    follower = Follower({}, "customers", CustomerRecord, time.monotonic, "customers")
    loop = asyncio.get_running_loop()
    waits = [asyncio.ensure_future(follower.wait_fresh(1.0)) for _ in range(500)]
    for number, wait in enumerate(waits):
        loop.call_later(0.48 + number * 0.0002, wait.cancel)
    async with asyncio.timeout(20):
        ends = await asyncio.gather(*waits, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}
