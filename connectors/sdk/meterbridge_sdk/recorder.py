"""Sends usage events from a service to Meterbridge in the background. The service's requests do not wait for this.

While the process lives, every accepted event is recorded once; otherwise a log line contains the complete event, and
`counts.dropped` or `counts.rejected` grows by one. If the process is killed, the events that wait in memory are lost.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from meterbridge_sdk.errors import BillingError, BillingUnauthorized, BillingUnavailable
from meterbridge_sdk.events import UsageEvent
from meterbridge_sdk.logs import log_event

MAX_WAITING: Final = 10_000
WORKERS: Final = 4
MAX_AGE_S: Final = 3600.0
FLUSH_TIMEOUT_S: Final = 10.0
#: First and longest wait before an event is sent again, seconds.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0


@dataclass(slots=True)
class RecorderCounts:
    """The outcomes of usage events since the recorder was created.

    Fields:
        recorded: durable at Meterbridge.
        retried: failed attempts that were or will be repeated.
        rejected: permanently refused; each has a log line `usage_rejected`.
        dropped: given up, because the queue was full, after `max_age_s`, at the end, or because the middleware could
            not make an event; each has a log line `usage_dropped`.
    """

    recorded: int = 0
    retried: int = 0
    rejected: int = 0
    dropped: int = 0


class UsageRecorder:
    """A bounded queue of usage events that is sent in the background of the running event loop.

    It belongs to one event loop and is not safe to use from other threads.

    Args:
        send: records one event, `MeterbridgeClient.send` for example; the same event twice must be recorded once.
        max_waiting: maximum number of waiting events; further events are dropped.
        workers: events that are sent at the same time, at least 1.
        max_age_s: how long one event is tried, seconds.
        clock: seconds, never backwards.
        sleep: waits for a number of seconds.

    Raises:
        TypeError, ValueError: `max_waiting`, `workers` or `max_age_s` is not such a number, or not above 0.

    Attributes:
        counts: see `RecorderCounts`.
    """

    def __init__(
        self,
        send: Callable[[UsageEvent], Awaitable[None]],
        *,
        max_waiting: int = MAX_WAITING,
        workers: int = WORKERS,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        for name, number in (("max_waiting", max_waiting), ("workers", workers)):
            if type(number) is not int:
                raise TypeError(f"{name} must be an int")
            if number < 1:
                raise ValueError(f"{name} must be at least 1")
        if not seconds("max_age_s", max_age_s):
            raise ValueError("max_age_s must be more than 0")
        self.counts = RecorderCounts()
        self._send = send
        self._max_waiting = max_waiting
        self._workers = workers
        self._max_age_s = max_age_s
        self._clock = clock
        self._sleep = sleep
        self._waiting: dict[tuple[str, str], UsageEvent] = {}
        self._queue: asyncio.Queue[tuple[UsageEvent, float]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = asyncio.Event()
        self._interrupted = False

    @property
    def waiting(self) -> int:
        """Number of events that are not recorded yet."""
        return len(self._waiting)

    def put(self, event: UsageEvent) -> None:
        """Accept an event; this returns at once and never raises. An event that already waits is not accepted a second
        time.
        """
        key = (event.org_id, event.transaction_id)
        if self._closing.is_set():
            self._drop(event, "closed")
        elif key not in self._waiting:
            if len(self._waiting) >= self._max_waiting:
                self._drop(event, "queue_full")
                return
            self._waiting[key] = event
            self._queue.put_nowait((event, self._clock()))
            if not self._tasks:
                self._tasks = [asyncio.ensure_future(self._work()) for _ in range(self._workers)]

    async def close(self, flush_timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Record the waiting events for at most `flush_timeout_s` seconds, and drop the rest. Further events are not
        accepted.
        """
        self._closing.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(flush_timeout_s):
                await self._queue.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._waiting:
            self._drop(self._waiting.popitem()[1], "shutdown")

    async def _work(self) -> None:
        while True:
            event, since = await self._queue.get()
            await self._record(event, since)
            self._waiting.pop((event.org_id, event.transaction_id), None)
            self._queue.task_done()

    async def _record(self, event: UsageEvent, since: float) -> None:
        """Send the event until it is recorded, refused or too old."""
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                await self._sent(event)
            except Exception as error:  # noqa: BLE001  # logged with all of the event; the next event has its turn
                if not (isinstance(error, BillingError) and _may_pass(error)):
                    return self._reject(event, error)
                self.counts.retried += 1
                self._log_interrupted(error)
                if self._clock() - since + wait_s > self._max_age_s:
                    return self._drop(event, error.reason)
            else:
                self.counts.recorded += 1
                self._log_resumed()
                return None
            await self._pause(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _sent(self, event: UsageEvent) -> None:
        """Send the event. A `CancelledError` that a library raises without a cancellation counts as a failed attempt,
        so that it does not end a worker.
        """
        try:
            await self._send(event)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise BillingUnavailable("connection_lost", "the request was cancelled by a library") from None

    async def _pause(self, wait_s: float) -> None:
        """Wait; if the recorder is closing, wait only a short time."""
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

    def _drop(self, event: UsageEvent, reason: str) -> None:
        self.counts.dropped += 1
        log_event(logging.ERROR, "usage_dropped", reason=reason, **event_fields(event))

    def _reject(self, event: UsageEvent, error: Exception) -> None:
        """Reject an event. An error other than `BillingError` is a bug, so its traceback is logged, too."""
        self.counts.rejected += 1
        known = isinstance(error, BillingError)
        reason = error.reason if isinstance(error, BillingError) else type(error).__name__
        log_event(logging.ERROR, "usage_rejected", None if known else error, reason=reason, **event_fields(event))

    def _log_interrupted(self, error: BillingError) -> None:
        if not self._interrupted:
            self._interrupted = True
            log_event(
                logging.WARNING,
                "recording_interrupted",
                reason=error.reason,
                detail=error.detail,
                waiting=self.waiting,
            )

    def _log_resumed(self) -> None:
        if self._interrupted:
            self._interrupted = False
            log_event(logging.INFO, "recording_resumed", waiting=self.waiting)


def seconds(name: str, value: object) -> float:
    """Return a time limit in seconds. Raises: TypeError: it is no number; ValueError: it is negative or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number of seconds, and not negative")
    return value


def _may_pass(error: BillingError) -> bool:
    """Return whether the event is kept. An unknown key (401) may be new, or may become valid when a database is
    restored.
    """
    return error.retryable or (isinstance(error, BillingUnauthorized) and error.status == HTTPStatus.UNAUTHORIZED)


def event_fields(event: UsageEvent) -> dict[str, object]:
    """Return all fields that a person needs to record the event manually."""
    return {
        "org_id": event.org_id,
        "transaction_id": event.transaction_id,
        "event_code": event.event_code,
        "timestamp": event.timestamp,
        "properties": dict(event.properties),
    }
