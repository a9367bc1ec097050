"""A time limit for requests that all have the same limit, so they expire in order, and one timer is enough.

`asyncio.timeout` starts and cancels a timer for each request, which takes a tenth of the time of a small webhook.
"""

import asyncio
from types import TracebackType


class SharedDeadline:
    """The time limit in seconds; `with deadline.of_this_task():` limits a block."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[_Wait, None] = {}  # in order of their deadlines
        self._timer: asyncio.TimerHandle | None = None

    def of_this_task(self) -> "_Wait":
        """A context manager that raises TimeoutError when the block takes too long."""
        return _Wait(self)

    def _begin(self, wait: "_Wait") -> None:
        loop = asyncio.get_running_loop()
        wait.deadline = loop.time() + self._seconds
        self._waiting[wait] = None
        if self._timer is None:
            self._timer = loop.call_at(wait.deadline, self._run_out, loop)

    def _end(self, wait: "_Wait") -> None:
        self._waiting.pop(wait, None)

    def _run_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        while self._waiting:
            oldest = next(iter(self._waiting))
            if oldest.deadline > loop.time():
                self._timer = loop.call_at(oldest.deadline, self._run_out, loop)
                return
            del self._waiting[oldest]
            oldest.give_up()


class _Wait:
    __slots__ = ("_gave_up", "_patience", "_task", "deadline")

    def __init__(self, patience: SharedDeadline) -> None:
        self._patience = patience
        self._gave_up = False
        self._task: asyncio.Task[object] | None = None
        self.deadline = 0.0

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._patience._begin(self)  # noqa: SLF001  # both classes are one mechanism

    def __exit__(self, raised: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._patience._end(self)  # noqa: SLF001
        if self._gave_up and self._task is not None:
            self._task.uncancel()
            if raised is asyncio.CancelledError:
                raise TimeoutError

    def give_up(self) -> None:
        if self._task is not None:
            self._gave_up = True
            self._task.cancel()
