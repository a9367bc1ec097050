"""Ends tasks, and distinguishes the cancellation of a task from a `CancelledError` that escapes from a library.

Python hides such an error: the task counts as cancelled, so nothing is logged, and a task group does not raise it.
"""

import asyncio
from collections.abc import Collection
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

#: How often a task is cancelled before it is left alone.
_TIMES: Final = 5


def is_own_cancellation(error: BaseException) -> bool:
    """Whether `error` is a `CancelledError` because the current task is cancelled; call it where the error is caught."""
    return isinstance(error, asyncio.CancelledError) and is_cancelled()


def is_cancelled() -> bool:
    """Whether the current task is cancelled, although what it awaited may have ended otherwise; True outside of a task."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def end(tasks: Collection[asyncio.Future[Any]], limit_s: float = 5.0) -> None:
    """Cancel tasks until they have ended, for at most `limit_s` seconds. A task that outlived its role would go on with what is closed,
    or beside the one that took its place.

    Once is not enough: a task whose awaited work ends at the moment of the cancellation may never see that (`asyncio.wait_for` of Python
    3.11 returns the result instead). A task that does not end within the limit is left alone and logged.

    The caller may be a task that is ended so itself, and is cancelled again meanwhile: that only makes the next attempt come earlier.

    Raises:
        CancelledError: the caller was cancelled; raised when the tasks have ended or are left alone.
    """
    cancelled: asyncio.CancelledError | None = None
    for _ in range(_TIMES):
        going_on = {task for task in tasks if not task.done()}
        if not going_on:
            break
        for task in going_on:
            task.cancel()
        try:
            await asyncio.wait(going_on, timeout=limit_s / _TIMES)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.done():
            work = task.get_coro() if isinstance(task, asyncio.Task) else task
            log.warning("task_left_running", task=getattr(work, "__qualname__", type(work).__name__))
    if cancelled is not None:
        raise cancelled
