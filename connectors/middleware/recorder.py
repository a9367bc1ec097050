"""Calls on their way from a service to Meterbridge: nobody waits for them, and none is lost without a word.

Promised: while the process lives, every call that was taken is stored once, or a line in the log tells all of it and
`counts.lost` or `counts.refused` is one more. Not promised: what waits in memory when the process is killed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from connectors.lago.metered import MeteredEvent, UsageSink
from schemas.errors import MeterbridgeError, Unavailable
from schemas.moments import to_iso

MOST, WORKERS = 10_000, 4
GIVE_UP_S, FLUSH_S = 3600.0, 10.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counts:
    """What became of calls, since the start.

    Fields:
        recorded: stored.
        retried: attempts that failed and were, or will be, made again.
        refused: wrong for ever; each is a line `api_call_refused`.
        lost: given up on, at a full queue, after `give_up_s` or at the end; each is a line `api_call_lost`.
    """

    recorded: int = 0
    retried: int = 0
    refused: int = 0
    lost: int = 0


class Recorder:
    """A bounded queue before a sink, emptied in the background of the running event loop.

    Args:
        sink: where calls are stored; the same one twice is stored once.
        most: calls that wait at most; further ones are lost.
        give_up_s: how long one call is tried.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        sink: UsageSink,
        *,
        most: int = MOST,
        workers: int = WORKERS,
        give_up_s: float = GIVE_UP_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.counts = Counts()
        self._sink = sink
        self._most = most
        self._give_up_s = give_up_s
        self._clock = clock
        self._sleep = sleep
        self._open: dict[str, MeteredEvent] = {}
        self._queue: asyncio.Queue[tuple[MeteredEvent, float]] = asyncio.Queue()
        self._workers = workers
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = asyncio.Event()
        self._interrupted = False

    @property
    def waiting(self) -> int:
        """Calls that are not stored yet."""
        return len(self._open)

    def put(self, event: MeteredEvent) -> None:
        """Take a call; returns at once and never raises. One that waits already is not taken twice."""
        if self._closing.is_set():
            self._lose(event, "closed")
        elif event.transaction_id not in self._open:
            if len(self._open) >= self._most:
                self._lose(event, "full")
                return
            self._open[event.transaction_id] = event
            self._queue.put_nowait((event, self._clock()))
            if not self._tasks:
                self._tasks = [asyncio.ensure_future(self._work()) for _ in range(self._workers)]

    async def close(self, flush_s: float = FLUSH_S) -> None:
        """Store what waits, for at most `flush_s`; what is left then is lost. Nothing is taken any more."""
        self._closing.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(flush_s):
                await self._queue.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._open:
            self._lose(self._open.popitem()[1], "shutdown")

    async def _work(self) -> None:
        while True:
            event, since = await self._queue.get()
            await self._settle(event, since)
            self._open.pop(event.transaction_id, None)
            self._queue.task_done()

    async def _settle(self, event: MeteredEvent, since: float) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                await self._sink.record(event)
            except Unavailable as error:
                self.counts.retried += 1
                self._tell_interrupted(error)
                if self._clock() - since + wait_s > self._give_up_s:
                    return self._lose(event, error.reason)
            except Exception as error:  # noqa: BLE001  # told in full; the next call has its turn
                return self._refuse(event, error)
            else:
                self.counts.recorded += 1
                self._tell_resumed()
                return None
            await self._pause(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _pause(self, wait_s: float) -> None:
        """At the end nobody waits long."""
        if self._closing.is_set():
            await self._sleep(_FIRST_WAIT_S)
            return
        sleeping = asyncio.ensure_future(self._sleep(wait_s))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((sleeping, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            closing.cancel()

    def _lose(self, event: MeteredEvent, reason: str) -> None:
        self.counts.lost += 1
        _log.error("api_call_lost", reason=reason, **_told(event))

    def _refuse(self, event: MeteredEvent, error: Exception) -> None:
        """A refusal is told; anything else is a bug of the sink's and told with its traceback."""
        self.counts.refused += 1
        known = isinstance(error, MeterbridgeError)
        _log.error(
            "api_call_refused",
            reason=error.reason if isinstance(error, MeterbridgeError) else type(error).__name__,
            exc_info=None if known else error,
            **_told(event),
        )

    def _tell_interrupted(self, error: Unavailable) -> None:
        if not self._interrupted:
            self._interrupted = True
            _log.warning("recording_interrupted", reason=error.reason, detail=error.detail, waiting=self.waiting)

    def _tell_resumed(self) -> None:
        if self._interrupted:
            self._interrupted = False
            _log.info("recording_resumed", waiting=self.waiting)


def _told(event: MeteredEvent) -> dict[str, object]:
    """All that is needed to record the call by hand."""
    return {
        "org": event.org_id,
        "transaction_id": event.transaction_id,
        "code": event.code,
        "at": to_iso(event.at_us),
        "properties": event.properties,
    }
