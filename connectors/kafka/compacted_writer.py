"""Writes the records of a compacted topic. Changes of all processes happen one after the other, many in one
transaction.

A change is a compare-and-set (docs/adr/0012). All processes write the topic with the same transactional id. A process that
starts its producer fences the others, reads their records, and writes until another process fences it. A fenced change
is applied again to the current records. Changes that are requested during a transaction are part of the next one.
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
#: Returns the new record (None = delete it) for the current one (None = there is none).
Make = Callable[[T | None], T | None]
#: Called with the current and the new record, before the change has any effect.
Announce = Callable[[T | None, T | None], Awaitable[None]]

#: Limits of one transaction: number of records, and duration in seconds.
_BATCH = 100
_LIMIT_S = 10.0
#: Waits in seconds. The second attempt follows at once, because the other process has usually finished. Before each
#: further attempt the wait is random between 0 and the first value. This value doubles with each attempt, up to the
#: second value.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0
#: The wait of a fetch is short, because transaction markers at the end of the topic do not end a fetch.
_TAIL: dict[str, Any] = {"isolation_level": "read_committed", "auto_offset_reset": "earliest", "fetch_max_wait_ms": 10}
_POLL_MS = 10

_encode = msgspec.json.Encoder().encode


async def _silently(_before: object, _after: object) -> None:
    """Do nothing: the `announce` of callers that announce nothing."""


@dataclass(slots=True, eq=False)
class _Change(Generic[T]):
    """A requested change; `tried`: the record whose write failed with an unknown result.

    A record contains the microsecond in which it was made. So if the current record equals `tried`, that write
    succeeded.
    """

    key: str
    make: Make[T]
    announce: Announce[T]
    done: asyncio.Future[T | None]
    tried: tuple[T | None, ...] = ()


class CompactedTopicWriter(Generic[T]):
    """The only writer of a compacted topic that several processes share.

    Args:
        view: a table of the topic. The caller keeps it up to date. Errors contain its name.
        kafka: connection options for aiokafka.
        topic: name with prefix.
        draw: returns a random number in `[0, 1)`.
        limit_s: time limit of a batch of changes, seconds. A caller waits for at most twice this time.
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
            make: returns the new record for the current one. If both are equal, nothing is written. It may be called
                several times.
            announce: awaited before the change has any effect.

        Raises:
            Unavailable: `write_conflict`, `kafka_unavailable`; the change may have been written, and repeating it is safe.
            Errors of `make` and `announce`: then nothing is written.
        """
        change = _Change(key, make, announce, asyncio.get_running_loop().create_future())
        self._waiting.append(change)
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._drain())
        try:
            # The limit covers the previous batch and the change's own batch. Aborting a batch may hang, too, if a
            # connection does not close.
            async with asyncio.timeout(2 * self._limit_s) as limit:
                return await change.done
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._given_up(()) from None

    async def close(self) -> None:
        """Close the connections. The writer cannot be used after this."""
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
        """Return the oldest changes, one per key, because the next change of a key needs the result of the previous
        one.
        """
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
            # A change that writes nothing or is refused must not depend on a record that another process has changed
            # meanwhile.
            await self._see_all()
            changes |= self._made(unsure, whole=True)
        for change in await self._announced(changes):
            del changes[change]
        if changes:
            await self._write(changes)

    def _made(self, batch: Sequence[_Change[T]], *, whole: bool) -> dict[_Change[T], tuple[T | None, T | None]]:
        """Return the current and the new record of each change that must be written.

        | `make` | on the complete view (`whole`) | on a view that may lack records of others |
        |---|---|---|
        | returns another record | write it | write it: if the current record is out of date, Kafka fences this process |
        | returns the current record, or an earlier attempt has written it | done | called again on the complete view |
        | raises MeterbridgeError, e.g. a refusal | the caller gets the error | called again on the complete view |
        | raises another error, which is a bug | the caller gets the error | the caller gets the error |
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
        """Announce all changes; return those that failed."""
        announcements = (change.announce(before, after) for change, (before, after) in changes.items())
        results = await asyncio.gather(*announcements, return_exceptions=True)
        failed = []
        for change, answer in zip(changes, results, strict=True):
            if isinstance(answer, BaseException):
                _fail([change], answer)
                failed.append(change)
        return failed

    async def _fence(self) -> None:
        """Become the only writer, and read all records that the others have written."""
        with self._or_abandoned():
            self._writer = TransactionalWriter(self._kafka, f"{self._topic}-writer")
            await self._writer.start()
            await self._see_all()

    async def _see_all(self) -> None:
        """Wait until the view has every record that is committed now."""
        # Subscribe first, because aiokafka knows the partitions of subscribed topics only.
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
        """Write records in one transaction. Raises: KafkaError: it is unknown whether any record was written."""
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
        """Discard the producer after an error, because it may be used only while the view has all written records."""
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
