"""Writes the records of a compacted topic: changes happen one after the other across all processes, many in one transaction.

A change is a compare-and-set (docs/adr/0012). All processes write the topic with the same transactional id. A process that
starts its producer fences the others, reads what they wrote, and writes until another process fences it. A change that is
fenced is made again on the current records. Changes that are requested during a transaction are in the next one.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, TypeVar

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced

from schemas.errors import MeterbridgeError, Unavailable
from streams.runtime.compacted_table import CompactedTable
from streams.runtime.plain_consumer import reading
from streams.runtime.transactions import TransactionalWriter, Write

T = TypeVar("T")
#: From the current record (None = there is none) to the new one (None = delete it).
Make = Callable[[T | None], T | None]
#: Called with the current and the new record, before the change has any effect.
Announce = Callable[[T | None, T | None], Awaitable[None]]

#: Limits of one transaction: its records, and the seconds until it is done.
_BATCH = 100
_LIMIT_S = 10.0
#: Waits in seconds: the second attempt follows at once, because the other process is usually done. Before each further one the
#: wait is random between 0 and the first value, which doubles with each attempt up to the second value.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0
#: The end of the topic is often only transaction markers, which do not end a fetch, so its wait is short.
_TAIL: dict[str, Any] = {"isolation_level": "read_committed", "auto_offset_reset": "earliest", "fetch_max_wait_ms": 10}
_POLL_MS = 10

_encode = msgspec.json.Encoder().encode


async def _silently(_before: object, _after: object) -> None:
    """For callers that announce nothing."""


@dataclass(slots=True, eq=False)
class _Change(Generic[T]):
    """A requested change. `tried` has the record whose write failed without a known result.

    A record contains the microsecond in which it was made. So if the current record equals `tried`, that write succeeded.
    """

    key: str
    make: Make[T]
    announce: Announce[T]
    done: asyncio.Future[T | None]
    tried: tuple[T | None, ...] = ()


class CompactedTopicWriter(Generic[T]):
    """The only writer of a compacted topic that several processes share.

    Args:
        view: a table of the topic; its owner keeps it up to date. Errors contain its name.
        kafka: connection options for aiokafka.
        topic: with its prefix.
        draw: a random number in `[0, 1)`.
        limit_s: seconds that a batch of changes may take; a caller waits for at most twice that.
    """

    def __init__(
        self,
        view: CompactedTable[T],
        kafka: Mapping[str, Any],
        topic: str,
        draw: Callable[[], float] = random.random,
        limit_s: float = _LIMIT_S,
    ) -> None:
        self._view = view
        self._kafka = kafka
        self._topic = topic
        self._draw = draw
        self._limit_s = limit_s
        self._waiting: list[_Change[T]] = []
        self._work: asyncio.Task[None] | None = None
        self._writer: TransactionalWriter | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def change(self, key: str, make: Make[T], announce: Announce[T] = _silently) -> T | None:
        """Change the record of `key`. On return the change is durable, and in the view.

        Args:
            make: the new record from the current one; an equal record writes nothing. It may be called several times.
            announce: awaited before the change has any effect.

        Raises:
            Unavailable: `write_conflict`, `kafka_unavailable`; the change may have been written, and repeating it is safe.
            Also what `make` and `announce` raise; then nothing is written.
        """
        change = _Change(key, make, announce, asyncio.get_running_loop().create_future())
        self._waiting.append(change)
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._drain())
        try:
            # The time of the batch before it, and of its own. Aborting a batch may also hang, if a connection does not close.
            async with asyncio.timeout(2 * self._limit_s) as limit:
                return await change.done
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._given_up(()) from None

    async def close(self) -> None:
        """Close the connections. This writer writes nothing after it."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})
        for change in self._waiting:
            change.done.cancel()
        self._abandon()
        await asyncio.gather(*self._ending)

    async def _drain(self) -> None:
        while batch := self._next_batch():
            failures: list[KafkaError] = []
            try:
                async with asyncio.timeout(self._limit_s):
                    await self._until_done(batch, failures)
            except TimeoutError:
                _fail(batch, self._given_up(failures))
            except Exception as error:  # noqa: BLE001  # the caller gets the error; other changes continue
                _fail(batch, error)
            except asyncio.CancelledError:
                _fail(batch, Unavailable("stopping", "the process is being stopped"))
                raise

    def _next_batch(self) -> list[_Change[T]]:
        """The oldest changes, one per key: the next change of a key is made from the result of the one before."""
        batch: dict[str, _Change[T]] = {}
        later = []
        for change in self._waiting:
            if change.key in batch or len(batch) == _BATCH:
                later.append(change)
            elif not change.done.done():
                batch[change.key] = change
        self._waiting = later
        return list(batch.values())

    async def _until_done(self, batch: Sequence[_Change[T]], failures: list[KafkaError]) -> None:
        for attempt in count():
            try:
                return await self._attempt(batch)
            except KafkaError as error:
                failures.append(error)
            await asyncio.sleep(self._draw() * min(_LONGEST_WAIT_S, _FIRST_WAIT_S * (2**attempt - 1)))
        raise AssertionError

    async def _attempt(self, batch: Sequence[_Change[T]]) -> None:
        """Write a batch once. Raises: KafkaError: fenced, or Kafka does not answer; the next attempt fences first."""
        whole = self._writer is None
        if whole:
            await self._fence()
        changes = self._made(batch, whole=whole)
        unsure = [change for change in batch if not change.done.done() and change not in changes]
        if unsure:
            # What stays or was refused must not depend on a record that another process has changed since.
            await self._see_all()
            changes |= self._made(unsure, whole=True)
        for change in await self._announced(changes):
            del changes[change]
        if changes:
            await self._write(changes)

    def _made(self, batch: Sequence[_Change[T]], *, whole: bool) -> dict[_Change[T], tuple[T | None, T | None]]:
        """The current and the new record of each change that must be written.

        | `make` | on the complete view (`whole`) | on a view that may lack records of others |
        |---|---|---|
        | returns another record | write it | write it: if the current record is out of date, Kafka fences this process |
        | returns the current record, or an earlier attempt has written it | done | called again on the complete view |
        | raises MeterbridgeError, e.g. a refusal | the caller gets it | called again on the complete view |
        | raises another error, which is a bug | the caller gets it | the caller gets it |
        """
        changes: dict[_Change[T], tuple[T | None, T | None]] = {}
        for change in batch:
            if change.done.done():
                continue
            before = self._view.table.get(change.key)
            try:
                after = before if change.tried == (before,) else change.make(before)
            except Exception as error:  # noqa: BLE001  # the caller gets the error
                if whole or not isinstance(error, MeterbridgeError):
                    _fail([change], error)
                continue
            if after != before:
                changes[change] = (before, after)
            elif whole:
                change.done.set_result(before)
        return changes

    async def _announced(self, changes: Mapping[_Change[T], tuple[T | None, T | None]]) -> list[_Change[T]]:
        """Announce all changes; returns those that failed."""
        announcements = (change.announce(before, after) for change, (before, after) in changes.items())
        results = await asyncio.gather(*announcements, return_exceptions=True)
        failed = []
        for change, answer in zip(changes, results, strict=True):
            if isinstance(answer, BaseException):
                _fail([change], answer)
                failed.append(change)
        return failed

    async def _fence(self) -> None:
        """Become the only writer, and read everything that the others have written."""
        with self._or_abandoned():
            self._writer = TransactionalWriter(self._kafka, f"{self._topic}-writer")
            await self._writer.start()
            await self._see_all()

    async def _see_all(self) -> None:
        """Wait until the view has every record that is committed now."""
        # Subscribed first: aiokafka knows the partitions only of topics in its subscription.
        async with reading(self._topic, **self._kafka, **_TAIL) as consumer:
            tps = [TopicPartition(self._topic, number) for number in consumer.partitions_for_topic(self._topic) or ()]
            consumer.unsubscribe()
            last: dict[TopicPartition, int] = {}
            ends = {tp: end for tp, end in (await consumer.end_offsets(tps)).items() if end > self._seen(tp)}
            if ends:
                consumer.assign(list(ends))
            for tp in ends:
                consumer.seek(tp, self._seen(tp))
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for tp, records in (await consumer.getmany(timeout_ms=_POLL_MS)).items():
                    last[tp] = records[-1].offset
        for tp, offset in last.items():
            await self._view.wait_offset(tp.partition, offset)

    def _seen(self, tp: TopicPartition) -> int:
        return self._view.next_offset(tp.partition)

    async def _write(self, changes: Mapping[_Change[T], tuple[T | None, T | None]]) -> None:
        """Raises: KafkaError: it is unknown whether anything was written."""
        assert self._writer is not None  # noqa: S101  # `_attempt` has fenced
        writes = []
        for change, (_, after) in changes.items():
            change.tried = (after,)
            writes.append(Write(self._topic, -1, change.key.encode(), None if after is None else _encode(after)))
        with self._or_abandoned():
            ends = await self._writer.commit(writes, TopicPartition(self._topic, 0), None, "")
            for (_, partition), end in ends.items():
                await self._view.wait_offset(partition, end - 1)
        for change, (_, after) in changes.items():
            if not change.done.done():
                change.done.set_result(after)

    @contextmanager
    def _or_abandoned(self) -> Iterator[None]:
        """Keep the producer only while the view is known to hold everything that was written."""
        try:
            yield
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            ending = asyncio.ensure_future(writer.stop())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def _given_up(self, failures: Sequence[KafkaError]) -> Unavailable:
        if failures and isinstance(failures[-1], ProducerFenced):
            return Unavailable("write_conflict", f"other processes keep changing {self._view.name}")
        return Unavailable("kafka_unavailable", f"a change of {self._view.name} was not stored in time")


def _fail(batch: Sequence[_Change[Any]], error: BaseException) -> None:
    for change in batch:
        if not change.done.done():
            change.done.set_exception(error)
