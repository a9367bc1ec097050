"""Keeps a task beside the work of a process running: what it does is missing if it ends, and no one awaits it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

from streams.runtime.cancellation import told_to_end

#: Seconds until a task that ended runs again.
AGAIN_S: Final = 5.0

log = structlog.get_logger(__name__)


async def kept_up(name: str, work: Callable[[], Awaitable[object]], again_s: float = AGAIN_S) -> NoReturn:
    """Run `work`, which is to run until it is cancelled, and run it again each time it ends: by an error, or by itself.

    The process goes on meanwhile, and the money with it. An error is logged with its traceback, `background_task_interrupted`.

    Args:
        name: of the task, in the log.
    """
    while True:
        try:
            await work()
            log.error("background_task_ended", task=name, again_s=again_s)
        except (Exception, asyncio.CancelledError) as error:
            if told_to_end(error):
                raise
            log.exception("background_task_interrupted", task=name, error=type(error).__name__, again_s=again_s)
        await asyncio.sleep(again_s)
