"""Distinguishes the cancellation of a task from a `CancelledError` that escapes from a library.

Python hides such an error: the task counts as cancelled, so nothing is logged, and a task group does not raise it.
"""

import asyncio


def is_own_cancellation(error: BaseException) -> bool:
    """Return whether `error` is a `CancelledError` because the current task is cancelled; call it where the error is
    caught.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)
