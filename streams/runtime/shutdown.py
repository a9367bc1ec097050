"""How a long-running process ends: SIGTERM or SIGINT at any moment leads to exit code 0 within ten seconds.

Until the work calls `begun`, the process ends at once, whatever it waits for: Kafka, Postgres, a thread in C.
Afterwards the work has `STOP_S` seconds to finish. An end at any moment loses nothing: acknowledged work is durable,
and the next process repeats the rest. So an error after the signal is logged and is no failure.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

#: The longest time from the signal to the exit, seconds. A supervisor waits a little longer for its children.
STOP_S = 8.0
ASKED = (signal.SIGTERM, signal.SIGINT)
_LAST_LINE_S = 0.3

log = structlog.get_logger(__name__)


class StopSignal:
    """The stop signal of one process.

    Args:
        leave: ends the process with an exit code.
        stop_s: see `STOP_S`.

    Attributes:
        requested: whether the signal has come.
    """

    def __init__(self, leave: Callable[[int], Any] = os._exit, stop_s: float = STOP_S) -> None:
        self.requested = False
        self._leave = leave
        self._stop_s = stop_s
        self._begun: set[str] = set()
        self._ever: set[str] = set()
        self._heard = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def event(self) -> asyncio.Event:
        """An event of the running loop that is set when the signal comes."""
        if self._stop is None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            if self.requested:
                self._stop.set()
        return self._stop

    def begun(self, work: str = "") -> asyncio.Event:
        """From now on this work has to finish: the signal no longer ends the process, but sets the returned event.

        Args:
            work: its name, where a process has several works. A work that begins after the signal finds the event set.
        """
        event = self.event
        if self.requested and not self._begun:
            self._leave(0)
        self._begun.add(work)
        self._ever.add(work)
        return event

    def idle(self, work: str = "") -> None:
        """This work has nothing to finish any more. If no other has: the signal ends the process at once, unless it came before."""
        if not self.requested:
            self._begun.discard(work)

    def has_begun(self, work: str) -> bool:
        """Whether this work has something to finish, or had when the signal came."""
        return work in self._begun

    def has_ever_begun(self, work: str) -> bool:
        """Whether this work began at least once in this process."""
        return work in self._ever

    def hear(self, *_: object) -> None:
        """The signal handler. Python calls it in the main thread between any two steps, also while the loop is busy."""
        if self.requested:
            return
        self.requested = True
        if not self._begun:
            self._leave(0)
        self._heard.set()
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    def listen(self) -> None:
        """Install the handler. A thread enforces the time limit, because the loop may be blocked."""
        threading.Thread(target=self._limit, name="stop-limit", daemon=True).start()
        for number in ASKED:
            signal.signal(number, self.hear)

    def end(self, code: int) -> None:
        """End the process: with 0 after the signal, else with `code`."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        self._leave(0 if self.requested else code)

    def limit_end(self, error: BaseException) -> None:
        """Work has raised `error` before the signal. Its loop is closed now, which waits without end for a task of a library that does not
        end: so a thread ends the process after the time limit, with the exit code EX_SOFTWARE."""
        threading.Thread(target=self._limit_end, args=(repr(error),), name="end-limit", daemon=True).start()

    def _limit(self) -> None:
        self._heard.wait()
        threading.Event().wait(self._stop_s)
        self._cut_short(0)

    def _limit_end(self, error: str) -> None:
        threading.Event().wait(self._stop_s)
        self._cut_short(0 if self.requested else os.EX_SOFTWARE, error=error)

    def _cut_short(self, code: int, error: str | None = None) -> None:
        # A log pipe without a reader must not keep the process alive either.
        watchdog = threading.Thread(
            target=lambda: log.warning("stop_cut_short", seconds=self._stop_s, error=error), daemon=True
        )
        watchdog.start()
        watchdog.join(_LAST_LINE_S)
        self._leave(code)


def run_until_told(
    work: Callable[[StopSignal], Coroutine[Any, Any, int]],
    run: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run,
    word: StopSignal | None = None,
) -> int:
    """Run `work` in an event loop and end the process with the code that it returns, or with 0 after the stop signal.

    Threads of a Kafka client that wait for a broker must not keep the process alive, so none is waited for.

    Args:
        run: runs a coroutine in a new loop.

    Raises:
        Exception: raised by `work` before the signal.
    """
    word = word or StopSignal()
    word.listen()

    async def main() -> int:
        try:
            code = await work(word)
        except (Exception, asyncio.CancelledError) as error:
            if not word.requested:
                word.limit_end(error)
                raise
            log.warning("stopped_with_error", error=repr(error), exc_info=error)
            code = 0
        word.end(code)
        return code

    return run(main())
