"""A time limit for requests that all have the same limit. They expire in the order of their arrival, so one timer is
enough.

`asyncio.timeout` starts and cancels a timer for each request, which takes a tenth of the time of a small webhook. For
the same reason no object is made for each block: the tasks themselves are the keys.
"""

import asyncio
from types import TracebackType


class SharedDeadline:
    """`with deadline:` raises TimeoutError when the block takes longer than `seconds`. A task is in one such block at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[asyncio.Task[object], float] = {}  # the deadlines, in their order
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        #: Kept, because finding the running loop is a system call (`getpid`) in Python 3.11.
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> None:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None or task in self._waiting:
            raise RuntimeError("a task is in one block at a time")
        deadline = self._waiting[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._run_out, loop)

    def __exit__(self, raised: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        task = asyncio.current_task(self._loop)
        if task is None or self._waiting.pop(task, None) is not None:
            return
        self._late.discard(task)
        task.uncancel()
        if raised is asyncio.CancelledError:
            raise TimeoutError

    def _run_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        while self._waiting:
            task, deadline = next(iter(self._waiting.items()))
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._run_out, loop)
                return
            del self._waiting[task]
            self._late.add(task)
            task.cancel()
