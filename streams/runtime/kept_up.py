"""Keeps a task beside the work of a process running: what it does is missing if it ends, and no one awaits it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

import structlog

from schemas.errors import MeterbridgeError
from streams.runtime.cancellation import is_cancelled, is_own_cancellation
from streams.runtime.role_counts import RoleCounts

#: Seconds until a task that ended runs again.
AGAIN_S: Final = 5.0
#: How often each task ended, by the task's name.
INTERRUPTED: Final = RoleCounts()

log = structlog.get_logger(__name__)


async def kept_up(name: str, work: Callable[[], Awaitable[object]], again_s: float = AGAIN_S) -> NoReturn:
    """Run `work`, which is to run until it is cancelled, and run it again each time it ends: by an error, or by itself.

    The process goes on meanwhile, and the money with it. An error is logged with its traceback, `background_task_interrupted`. Each end
    is counted in `INTERRUPTED`, except by a `MeterbridgeError`: a neighbour is away, which has alarms of its own.

    Args:
        name: of the task, in the log and in the metric.
    """
    while True:
        try:
            await work()
            if is_cancelled():
                raise asyncio.CancelledError
            INTERRUPTED.add(name)
            log.error("background_task_ended", task=name, again_s=again_s)
        except (Exception, asyncio.CancelledError) as error:
            if is_own_cancellation(error):
                raise
            if not isinstance(error, MeterbridgeError):
                INTERRUPTED.add(name)
            log.exception("background_task_interrupted", task=name, error=type(error).__name__, again_s=again_s)
            if is_cancelled():
                raise asyncio.CancelledError from error
        await asyncio.sleep(again_s)
