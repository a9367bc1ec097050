"""A worker's role that runs until it has done so many records."""

import asyncio
import os
from typing import Any

from bench.stopwatch import Stopwatch
from streams.delivery.engine import Delivery
from streams.runtime.run import run_role


class Countdown:
    """Counts records of a role down from `records`; then the watch stops, and `over` is set."""

    def __init__(self, watch: Stopwatch, records: int) -> None:
        self.over = asyncio.Event()
        self._watch = watch
        self._records = self._left = records

    def start(self) -> None:
        """The first records are there; once is enough."""
        self._watch.start()

    def done(self, records: int) -> None:
        """So many more are committed."""
        self._left -= records
        if self._left <= 0 and not self.over.is_set():
            self._watch.stop(self._records)
            self.over.set()


async def run_until_over(role: Any, countdown: Countdown) -> None:
    """Run what a `build_...` of streams/app.py has built. The process ends here: all is committed, and stopping is not measured."""
    running = asyncio.ensure_future(run_role(role, asyncio.Event()))
    over = asyncio.ensure_future(countdown.over.wait())
    await asyncio.wait({running, over}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    os._exit(0)


def posts_nothing() -> Delivery:
    """Only the sink and the retry role ask for this. Raises: RuntimeError."""
    raise RuntimeError("this role posts nothing")
