"""A table that reads a compacted topic to its end and then follows it.

The topic is the source of truth and the changelog. A table has no consumer group, commits nothing, and works in the
same way in worker and api (docs/adr/0003). It knows the age of its view. Code that decides about money calls
`wait_fresh` first.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from schemas.decoding import DAMAGE, decoder
from streams.runtime.cancellation import end, is_own_cancellation
from streams.runtime.plain_consumer import reading
from streams.runtime.unreadable import note

log = structlog.get_logger(__name__)

T = TypeVar("T")
#: The default for the shortest age that the readers of a table request, seconds.
FRESH_S = 5.0
#: Fractions of that age: the time between two requests for the end, and the time that a broker may hold a fetch without
#: records. Both use one connection, so the request for the end waits behind the fetch. So the age of a view is at most
#: 0.6 of the requested age.
_PROBE_PART, _HELD_PART = 0.4, 0.2
#: How often aiokafka looks for partitions to fetch without a notification, milliseconds. The default is 200.
_LOOK_MS = 2000
_AGAIN_S, _TELL_EVERY_S = 0.5, 60.0
#: The most records that are processed without a pause. This bounds the time for which the event loop is blocked.
_BATCH = 2000


class _End(NamedTuple):
    """The end of the topic, by partition, at a moment after `requested`."""

    requested: float
    offsets: Mapping[TopicPartition, int]


class TopicTable(ABC):
    """Reads a whole topic from its beginning, without a group, and follows it; `take` gets every record once, in order.

    Args:
        kafka: connection options for aiokafka.
        monotonic: a clock, seconds.
        name: name of the table, for logs and metrics.
        fresh_s: the shortest limit with which `wait_fresh` is called, seconds. While nothing is written, the view is at
            most this old. A longer time means fewer requests. A new record is always processed at once.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topic: str,
        monotonic: Callable[[], float],
        name: str,
        fresh_s: float = FRESH_S,
    ) -> None:
        self.name = name
        self._probe_s, self._held_ms = fresh_s * _PROBE_PART, round(fresh_s * _HELD_PART * 1000)
        self._kafka = kafka
        self._topic = topic
        self._monotonic = monotonic
        self._fresh_at = float("-inf")
        self._next: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()

    @abstractmethod
    def take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Process records. Must not raise for the content of a record."""

    def begin(self) -> None:
        """Start to follow the topic in the background; further calls have no effect."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._follow())

    async def start(self) -> None:
        """Call `begin`, and wait until the topic has been read to its end."""
        self.begin()
        await self.wait_fresh(float("inf"))

    async def stop(self) -> None:
        """Stop following the topic; the view is kept."""
        if self._task is not None:
            await end({self._task})

    def lag_s(self) -> float:
        """Return the seconds since the view was last known to be complete; infinite before the first time."""
        return self._monotonic() - self._fresh_at

    def complete(self) -> bool:
        """Return whether the topic was read to its end at least once. Raises the error that ended the reading, if one
        did.
        """
        if self._task is not None and self._task.done():
            self._task.result()
        return self._fresh_at > float("-inf")

    async def wait_fresh(self, limit_s: float) -> None:
        """Wait until the view is at most `limit_s` seconds old (`inf`: until it was complete once)."""
        while not (self.complete() and self.lag_s() <= limit_s):
            await self._change()

    async def wait_offset(self, partition: int, offset: int) -> None:
        """Wait until the record at `offset` is processed, so that a writer reads its own write."""
        while self.next_offset(partition) <= offset:
            self.complete()
            await self._change()

    def next_offset(self, partition: int) -> int:
        """Return the offset after the last processed record; 0 before the first."""
        return self._next.get(partition, 0)

    async def _change(self) -> None:
        async with self._changed:
            # `wait_for` is not used: if it is cancelled when its time ends, it returns without the condition's lock.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._changed.wait()

    async def _follow(self) -> None:
        told_at = failed_at = float("-inf")
        while True:
            try:
                await self._session()
            except KafkaError as error:
                # Kafka may be unavailable for hours. The connection is tried twice a second.
                if self._monotonic() - told_at >= _TELL_EVERY_S:
                    told_at = self._monotonic()
                    address = f"KAFKA_BOOTSTRAP_SERVERS={self._kafka.get('bootstrap_servers', '')}"
                    log.warning("follower_interrupted", table=self.name, error=type(error).__name__, address=address)
            except (Exception, asyncio.CancelledError) as error:
                if is_own_cancellation(error):
                    raise
                # The age of a table without progress grows, and its readers wait. If the task ended instead, its
                # process would end, including an ingress that may run in it.
                if self._monotonic() - failed_at >= _TELL_EVERY_S:
                    failed_at = self._monotonic()
                    log.exception("follower_interrupted", table=self.name)
            await asyncio.sleep(_AGAIN_S)

    async def _session(self) -> None:
        # Subscribe first, because only then the first metadata response names the partitions.
        async with reading(
            self._topic,
            **self._kafka,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self._held_ms,
            consumer_timeout_ms=_LOOK_MS,
        ) as consumer:
            partitions = sorted(consumer.partitions_for_topic(self._topic) or ())
            if not partitions:
                raise UnknownTopicOrPartitionError(self._topic)
            tps = [TopicPartition(self._topic, number) for number in partitions]
            consumer.unsubscribe()
            # Request the end before the first fetch, so that the request does not wait behind the fetch.
            end = await self._ask_end(consumer, tps)
            consumer.assign(tps)
            for tp in tps:
                consumer.seek(tp, self._next.get(tp.partition, 0))
            while True:
                await self._read_to(consumer, end)
                await self._read_on(consumer, end.requested + self._probe_s)
                end = await self._ask_end(consumer, tps)

    async def _ask_end(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> _End:
        """Request the end of the topic. A fetch response also has an end, but after a change of the leader it may lack
        acknowledged records (KIP-207). The response to this request does not.
        """
        requested = self._monotonic()
        return _End(requested, await consumer.end_offsets(tps))

    async def _read_to(self, consumer: AIOKafkaConsumer, end: _End) -> None:
        """Read up to the requested end. The view is then complete as of the moment of the request."""
        while not all([await consumer.position(tp) >= offset for tp, offset in end.offsets.items()]):
            await self._read(consumer, self._held_ms)
        self._fresh_at = end.requested
        await self._tell()

    async def _read_on(self, consumer: AIOKafkaConsumer, until: float) -> None:
        """Process new records until it is time to request the end again."""
        while (left_s := until - self._monotonic()) > 0:
            await self._read(consumer, ceil(left_s * 1000))

    async def _read(self, consumer: AIOKafkaConsumer, wait_ms: int) -> None:
        got = await consumer.getmany(timeout_ms=wait_ms, max_records=_BATCH)
        for tp, records in got.items():
            self._take(tp.partition, records)
            self._next[tp.partition] = records[-1].offset + 1
        if got:
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Call `take`. If it raises, take the records one by one, so that a bad record costs only itself."""
        try:
            self.take(partition, records)
        except DAMAGE:
            for record in records:
                try:
                    self.take(partition, [record])
                except DAMAGE as damage:
                    note(self.name, partition, record.offset, type(damage).__name__)


class CompactedTable(TopicTable, Generic[T]):
    """The values of a compacted topic by key; a record without a value deletes its key.

    Fields:
        table: the view. It can be read without `await`; the value of a key is replaced as a whole.
        version: grows with every change.
        members: grows when a key is added or removed.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topic: str,
        of: type[T],
        monotonic: Callable[[], float],
        name: str,
        fresh_s: float = FRESH_S,
    ) -> None:
        super().__init__(kafka, topic, monotonic, name, fresh_s)
        self.table: dict[str, T] = {}
        self.version = 0
        self.members = 0
        self._decode = decoder(of)

    def take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Update the table."""
        for record in records:
            self.version += 1
            key = (record.key or b"").decode("utf-8", "replace")
            self.members += (key in self.table) is (record.value is None)
            if record.value is None:
                self.table.pop(key, None)
                continue
            try:
                self.table[key] = self._decode(record.value)
            except msgspec.DecodeError as damage:
                # The record comes from a later release or another program, so the known value is kept.
                note(self.name, partition, record.offset, str(damage))
