"""A partition task owns one partition: it opens, takes fetch batches in order, ticks, and closes.

An agent only passes a fetch batch to its partition's task, so work on different partitions overlaps. One rule prevents
lost batches: the task accepts a batch only if its `from_offset` is at or below the next expected offset. Otherwise it
seeks and fetches again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, Protocol, runtime_checkable

import structlog
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaConnectionError, KafkaError, ProducerFenced
from faust.types.tuples import TP

from schemas.errors import Unavailable
from streams.runtime.faust_transport import FetchBatch

log = structlog.get_logger(__name__)

#: Numbers of waiting batches at which the partition is paused, at which it is resumed, and at which further batches are
#: refused.
_PAUSE_AT, _RESUME_AT, _REFUSE_AT = 3, 1, 16
_REOPENINGS = 5
#: Further attempts are 8 s apart, and one in this many is logged: about one a minute.
_TELL_EVERY = 8
#: A fetch batch with this many records gets a transaction at once; smaller ones wait `linger_s` for more.
_WORTH_IT = 2000
#: Number of idle ticks (2 s) after which a task fetches a batch again that it knows and did not receive.
_PATIENCE = 4
_CLOSE_S = 2.0


class PartitionProcessor(Protocol):
    """The work of a role on a partition. Only the partition's task calls it, one call at a time."""

    async def open(self) -> int:
        """Take over the partition and fence its previous owner; return the next expected offset."""

    async def process(self, records: Sequence[ConsumerRecord]) -> int:
        """Process a fetch batch and make the result durable; return the next expected offset.

        Records from that offset on are given back. They come again, together with later records.
        """

    async def punctuate(self) -> None:
        """Do the time-dependent work; called about twice a second."""

    async def close(self) -> None:
        """Release the partition. Must not raise after work that is durable."""

    def in_transaction(self) -> bool:
        """Return whether a Kafka transaction is being committed. `close` then waits for it."""


@runtime_checkable
class LooksBehind(Protocol):
    """Work that may give records back, and therefore needs to know whether more records wait."""

    def look_behind(self, following: Callable[[], ConsumerRecord | None]) -> None:
        """Set `following`: it returns the first record that would come together with the given-back ones; None = there
        is none.
        """


class Source(Protocol):
    """The part of the consumer that a partition task uses."""

    def fetched_to(self, tp: TP) -> int | None: ...
    async def seek_partition(self, tp: TP, offset: int) -> bool: ...
    def pause_partitions(self, tps: Any) -> None: ...
    def resume_partitions(self, tps: Any) -> None: ...


class PartitionTask:
    """Owns one partition until it is closed.

    | state      | `expected` | leaves it by                                                                  |
    |------------|------------|-------------------------------------------------------------------------------|
    | opening    | None       | `work.open()` succeeds; retried while the error may pass, without a limit while Kafka is away |
    | running    | an offset  | `close()`; or an error                                                        |
    | reopening  | old offset | a connection or coordinator error: `work.close()`, `work.open()`, at most 5 times |
    | ended      | -          | any other error: `fatal`                                                      |
    | closing    | -          | a running transaction ends, at most 2 s; then `work.close()`                  |

    A transaction costs the same for one record as for a thousand, so small batches are collected for `linger_s` seconds.

    Args:
        fatal: called with an error after which the task cannot continue. It must halt the partition or end the process,
            because a partly working worker loses money unnoticed.
    """

    def __init__(
        self,
        tp: TP,
        work: PartitionProcessor,
        source: Source,
        fatal: Callable[[TP, BaseException], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        linger_s: float = 0.0,
    ) -> None:
        self.tp = tp
        self.work = work
        self.expected: int | None = None
        self.gaps = 0
        self._source = source
        self._fatal = fatal
        self._sleep = sleep
        self._linger_s = linger_s
        self._free_at = 0.0
        self._fetch_batches: deque[FetchBatch | None] = deque()  # None = a punctuation
        self._arrived = asyncio.Event()
        self._punctuating = False
        self._paused = False
        self._closing = False
        self._waited = 0
        self._under_way_to = 0
        if isinstance(work, LooksBehind):
            work.look_behind(self._following)
        self._task = asyncio.ensure_future(self._run())

    def offer(self, fetch_batch: FetchBatch) -> None:
        """Queue a batch. A full queue pauses the partition. Far beyond this limit batches are dropped, and the task
        detects the gap by the stamps and fetches them again.
        """
        waiting = len(self._fetch_batches)
        if self._closing or waiting >= _REFUSE_AT:
            return
        self._fetch_batches.append(fetch_batch)
        self._arrived.set()
        if waiting + 1 >= _PAUSE_AT and not self._paused:
            self._paused = True
            self._source.pause_partitions([self.tp])

    def punctuate(self) -> None:
        """Request a punctuation. Several requests before it runs count as one."""
        if not self._punctuating and not self._closing and self.expected is not None:
            self._punctuating = True
            self._fetch_batches.append(None)
            self._arrived.set()

    async def close(self) -> None:
        """Refuse new fetch batches, wait only for a running Kafka transaction, and release the partition."""
        self._closing = True
        deadline = asyncio.get_running_loop().time() + _CLOSE_S
        while self.work.in_transaction() and asyncio.get_running_loop().time() < deadline:
            await asyncio.wait({self._task}, timeout=0.01)
            if self._task.done():
                break
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.work.close()

    async def _run(self) -> None:
        try:
            await self._open()
            while not self._closing:
                item = await self._next()
                if item is not None:
                    item = await self._gather(item)
                await self._survive(item)
                self._resume()
        except asyncio.CancelledError as error:
            if self._closing:
                raise
            # The task was not cancelled: a CancelledError escaped from a library. The partition must not stay without
            # an owner.
            self._fatal(self.tp, error)
        except BaseException as error:  # noqa: BLE001  # any error ends the process or the partition's task
            if self._closing and (isinstance(error, ProducerFenced) or may_pass(error)):
                # Unfinished work is not durable: the next owner begins where this one did.
                log.info(
                    "partition_task_closed",
                    topic=self.tp.topic,
                    partition=self.tp.partition,
                    error=type(error).__name__,
                )
                return
            self._fatal(self.tp, error)

    async def _next(self) -> FetchBatch | None:
        while not self._fetch_batches:
            self._arrived.clear()
            await self._arrived.wait()
        return self._fetch_batches.popleft()

    async def _gather(self, fetch_batch: FetchBatch) -> FetchBatch:
        """Return `fetch_batch`, joined with the batches that have followed it without a gap."""
        clock = asyncio.get_running_loop().time
        fetch_batch = self._joined(fetch_batch)
        if len(fetch_batch.records) < _WORTH_IT and (wait_s := self._free_at - clock()) > 0:
            await self._sleep(wait_s)
            fetch_batch = self._joined(fetch_batch)
        self._free_at = clock() + self._linger_s
        return fetch_batch

    def _joined(self, fetch_batch: FetchBatch) -> FetchBatch:
        while len(fetch_batch.records) < _WORTH_IT and self._fetch_batches:
            following = self._fetch_batches[0]
            if following is None or following.from_offset != fetch_batch.next_offset:
                break
            self._fetch_batches.popleft()
            records = [*fetch_batch.records, *following.records]
            fetch_batch = FetchBatch(records, fetch_batch.from_offset, following.next_offset)
        return fetch_batch

    async def _survive(self, item: FetchBatch | None) -> None:
        """Process one item; connection and coordinator errors reopen the work, a few times."""
        for attempt in range(_REOPENINGS + 1):
            try:
                await self._do(item)
                return
            except (Unavailable, KafkaError) as error:
                if not may_pass(error) or attempt == _REOPENINGS or self._closing:
                    raise
                self._warn("partition_task_reopened", error, attempt)
                await self._sleep(min(0.25 * 2**attempt, 4.0))
                await self._open()

    async def _do(self, item: FetchBatch | None) -> None:
        expected = self.expected
        if item is None:
            self._punctuating = False
            await self.work.punctuate()
            await self._look_behind()
            return
        self._waited = 0
        if expected is None or item.next_offset <= expected:
            return
        if item.from_offset > expected:
            await self._ask_again(expected, item.from_offset)
            return
        records = [record for record in item.records if record.offset >= expected]
        self._under_way_to = item.next_offset
        self.expected = done_to = await self.work.process(records) if records else item.next_offset
        if left := [record for record in records if record.offset >= done_to]:
            self._take_back(FetchBatch(left, done_to, item.next_offset))

    def _following(self) -> ConsumerRecord | None:
        fetch_batch = next((pending for pending in self._fetch_batches if pending is not None), None)
        return (
            fetch_batch.records[0]
            if fetch_batch is not None and fetch_batch.from_offset == self._under_way_to
            else None
        )

    def _take_back(self, fetch_batch: FetchBatch) -> None:
        """Put the batch at the head of the queue, but behind a waiting tick, so that nothing separates it from the next
        batch.
        """
        self._fetch_batches.appendleft(fetch_batch)
        if None in self._fetch_batches:
            self._fetch_batches.remove(None)
            self._fetch_batches.appendleft(None)

    async def _open(self) -> None:
        """Open the work, with retries after temporary errors. While Kafka does not answer, this waits without a limit,
        because another process could not reach Kafka either.
        """
        for attempt in count():
            try:
                await self._reopen()
                return
            except (Unavailable, KafkaError) as error:
                for_good = self._closing or (attempt >= _REOPENINGS and not isinstance(error, KafkaConnectionError))
                if for_good or not may_pass(error):
                    raise
                if attempt <= _REOPENINGS or attempt % _TELL_EVERY == 0:
                    self._warn("partition_task_open_failed", error, attempt)
                await self._sleep(min(0.5 * 2 ** min(attempt, _REOPENINGS), 8.0))

    def _warn(self, event: str, error: Exception, attempt: int) -> None:
        place = {"topic": self.tp.topic, "partition": self.tp.partition}
        log.warning(event, **place, error=type(error).__name__, attempt=attempt + 1)

    async def _reopen(self) -> None:
        await self.work.close()
        self.expected = await self.work.open()
        await self._source.seek_partition(self.tp, self.expected)

    async def _look_behind(self) -> None:
        """Detect a dropped last batch of a silent partition, because no later batch would show the gap."""
        expected, fetched_to = self.expected, self._source.fetched_to(self.tp)
        if expected is None or fetched_to == expected or self._fetch_batches:
            self._waited = 0
            return
        self._waited += 1
        if self._waited >= _PATIENCE:
            self._waited = 0
            await self._ask_again(expected, fetched_to)

    async def _ask_again(self, expected: int, got: int | None) -> None:
        """Drop the queue and fetch from `expected`, because a fetch batch is missing."""
        self.gaps += 1
        log.warning("fetch_gap", topic=self.tp.topic, partition=self.tp.partition, expected=expected, got=got)
        self._fetch_batches.clear()
        self._punctuating = False
        await self._source.seek_partition(self.tp, expected)

    def _resume(self) -> None:
        if self._paused and len(self._fetch_batches) <= _RESUME_AT and not self._closing:
            self._paused = False
            self._source.resume_partitions([self.tp])


def may_pass(error: BaseException) -> bool:
    """Return whether the error is temporary: a connection, coordinator or leadership error. A fence is final, because
    another owner has the partition.
    """
    if isinstance(error, ProducerFenced):
        return False
    return isinstance(error, Unavailable) or bool(getattr(error, "retriable", False))
