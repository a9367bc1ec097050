"""How a process ends that runs until it is told: SIGTERM or SIGINT at any moment is exit code 0 within ten seconds.

Before the work says that something has begun, the process ends at once, whatever it waits for: Kafka, Postgres, a thread
in C. Afterwards the work has `STOP_S` to finish. An end at any moment loses nothing: what is acknowledged is durable, and
everything else is done again by the next process. So an error after the word to stop is logged, and is no failure.
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

#: From the signal to the exit at the most, whatever hangs. A supervisor waits a little longer for its children.
STOP_S = 8.0
ASKED = (signal.SIGTERM, signal.SIGINT)
_LAST_LINE_S = 0.3

log = structlog.get_logger(__name__)


class StopSignal:
    """The word to stop, of one process.

    Args:
        leave: ends the process with a code.
        stop_s: see `STOP_S`.
    """

    def __init__(self, leave: Callable[[int], Any] = os._exit, stop_s: float = STOP_S) -> None:
        self.told = False
        self._leave = leave
        self._stop_s = stop_s
        self._begun = False
        self._heard = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    @property
    def event(self) -> asyncio.Event:
        """Set once told; of the running loop."""
        if self._stop is None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            if self.told:
                self._stop.set()
        return self._stop

    def begun(self) -> asyncio.Event:
        """From now on there is something to finish: the word ends nothing by itself, but sets the event that is returned."""
        event = self.event
        self._begun = True
        if self.told:
            self._leave(0)
        return event

    def idle(self) -> None:
        """There is nothing to finish any more: from now on the word ends the process at once, unless it was told before."""
        self._begun = self.told

    def hear(self, *_: object) -> None:
        """The handler of a signal. Python calls it in the main thread between any two steps, also while the loop is busy."""
        if self.told:
            return
        self.told = True
        if not self._begun:
            self._leave(0)
        self._heard.set()
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    def listen(self) -> None:
        """Take the signals; a thread sees to it that the end comes in time, for the loop may stand still."""
        threading.Thread(target=self._limit, name="stop-limit", daemon=True).start()
        for number in ASKED:
            signal.signal(number, self.hear)

    def end(self, code: int) -> None:
        """End the process: with 0 if it was told to stop, else with `code`."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        self._leave(0 if self.told else code)

    def _limit(self) -> None:
        self._heard.wait()
        threading.Event().wait(self._stop_s)
        # A log that nobody reads must not keep the process either.
        telling = threading.Thread(target=lambda: log.warning("stop_cut_short", seconds=self._stop_s), daemon=True)
        telling.start()
        telling.join(_LAST_LINE_S)
        self._leave(0)


def run_until_told(
    work: Callable[[StopSignal], Coroutine[Any, Any, int]],
    run: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run,
    word: StopSignal | None = None,
) -> int:
    """Run `work` in an event loop and end the process with the code that it returns, or 0 if it was told to stop.

    Threads of a Kafka client that waits for a broker must not keep an ended process alive, so nothing is waited for.

    Args:
        run: runs a coroutine in a loop of its own.

    Raises:
        Exception: what `work` raised before it was told to stop.
    """
    word = word or StopSignal()
    word.listen()

    async def main() -> int:
        try:
            code = await work(word)
        except (Exception, asyncio.CancelledError) as error:
            if not word.told:
                raise
            log.warning("stopped_with_error", error=repr(error), exc_info=error)
            code = 0
        word.end(code)
        return code

    return run(main())
