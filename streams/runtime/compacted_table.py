"""A table that reads a compacted topic to its end and then follows it.

The topic is the truth and the changelog. A table has no consumer group and commits nothing, and works the same in
worker and api (docs/adr/0003). It knows the age of its view: code that decides about money calls `wait_fresh` first.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from schemas.decoding import DAMAGE, decoder
from streams.runtime.plain_consumer import reading
from streams.runtime.unreadable import note

log = structlog.get_logger(__name__)

T = TypeVar("T")
_POLL_MS = 100
_PROBE_S = 1.0
_AGAIN_S, _TELL_EVERY_S = 0.5, 60.0
#: The most records that are taken without a pause; this bounds how long the event loop is blocked.
_BATCH = 2000


class TopicTable(ABC):
    """Reads a whole topic from its beginning, without a group, and follows it; `take` gets every record once, in order.

    Args:
        kafka: connection options for aiokafka.
        monotonic: a clock, seconds.
        name: of the table, for logs and metrics.
    """

    def __init__(self, kafka: Mapping[str, Any], topic: str, monotonic: Callable[[], float], name: str) -> None:
        self.name = name
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
        """Follow in the background; further calls change nothing."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._follow())

    async def start(self) -> None:
        """`begin`, and return when the topic has been read to its end."""
        self.begin()
        await self.wait_fresh(float("inf"))

    async def stop(self) -> None:
        """Stop following; the view stays."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def lag_s(self) -> float:
        """Seconds since the view was last known to be complete; infinite before the first time."""
        return self._monotonic() - self._fresh_at

    def complete(self) -> bool:
        """Whether the topic was read to its end at least once. Raises the error that ended the reading, if one did."""
        if self._task is not None and self._task.done():
            self._task.result()
        return self._fresh_at > float("-inf")

    async def wait_fresh(self, limit_s: float) -> None:
        """Return when the view is at most `limit_s` seconds old (`inf`: when it was complete once)."""
        while not (self.complete() and self.lag_s() <= limit_s):
            await self._change()

    async def wait_offset(self, partition: int, offset: int) -> None:
        """Return when the record at `offset` was taken: a writer then reads its own write."""
        while self.next_offset(partition) <= offset:
            self.complete()
            await self._change()

    def next_offset(self, partition: int) -> int:
        """The offset after the last record taken; 0 before the first."""
        return self._next.get(partition, 0)

    async def _change(self) -> None:
        async with self._changed:
            # Not `wait_for`: if it is cancelled as its time ends, it returns without the condition's lock.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._changed.wait()

    async def _follow(self) -> None:
        told_at = failed_at = float("-inf")
        while True:
            try:
                await self._session()
            except KafkaError as error:
                # Kafka may be away for hours, and is tried twice a second.
                if self._monotonic() - told_at >= _TELL_EVERY_S:
                    told_at = self._monotonic()
                    address = f"KAFKA_BOOTSTRAP_SERVERS={self._kafka.get('bootstrap_servers', '')}"
                    log.warning("follower_interrupted", table=self.name, error=type(error).__name__, address=address)
            except Exception:
                # A table without progress ages, which its readers notice and wait for. If the task ended instead, its
                # process would end, and the ingress that may run in it.
                if self._monotonic() - failed_at >= _TELL_EVERY_S:
                    failed_at = self._monotonic()
                    log.exception("follower_interrupted", table=self.name)
            await asyncio.sleep(_AGAIN_S)

    async def _session(self) -> None:
        # Subscribed at first: only then does the first metadata answer name the partitions.
        async with reading(
            self._topic,
            **self._kafka,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_POLL_MS,
        ) as consumer:
            partitions = sorted(consumer.partitions_for_topic(self._topic) or ())
            if not partitions:
                raise UnknownTopicOrPartitionError(self._topic)
            tps = [TopicPartition(self._topic, number) for number in partitions]
            consumer.unsubscribe()
            consumer.assign(tps)
            for tp in tps:
                consumer.seek(tp, self._next.get(tp.partition, 0))
            while True:
                await self._catch_up(consumer, tps)

    async def _catch_up(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> None:
        """Read to the current end of the topic, which makes the view complete as of now; then read on for a second."""
        requested = self._monotonic()
        ends = await consumer.end_offsets(tps)
        behind = True
        while behind or self._monotonic() - requested < _PROBE_S:
            got = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_BATCH)
            for tp, records in got.items():
                self._take(tp.partition, records)
                self._next[tp.partition] = records[-1].offset + 1
            caught_up = behind and all([await consumer.position(tp) >= ends[tp] for tp in tps])
            if caught_up:
                behind, self._fresh_at = False, requested
            if got or caught_up:
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
    """Key to value of a compacted topic; a record without a value deletes its key.

    Fields:
        table: the view. Readers need not await; a key's value is replaced whole.
        version: grows with every change.
        members: grows when a key is added or removed.
    """

    def __init__(
        self, kafka: Mapping[str, Any], topic: str, of: type[T], monotonic: Callable[[], float], name: str
    ) -> None:
        super().__init__(kafka, topic, monotonic, name)
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
                # A record of a later release, or of another program: the value that is known stays in force.
                note(self.name, partition, record.offset, str(damage))
