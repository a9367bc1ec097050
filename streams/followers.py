"""A follower is a table: it reads a compacted topic to its end, then follows it.

The topic is the truth and the changelog; a follower has no group, commits nothing and is the same
in worker and api (docs/adr/0003). It knows how old its view may be: whoever decides money by it asks
`wait_fresh` first.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

log = structlog.get_logger(__name__)

T = TypeVar("T")
_POLL_MS = 100
_PROBE_S = 1.0


class Follower(Generic[T]):
    """Key to value of a compacted topic; a record without a value deletes its key.

    Fields:
        table: the view; replaced keys at once, read without awaiting.
        version: grows with every change.
    """

    def __init__(
        self, kafka: Mapping[str, Any], topic: str, of: type[T], monotonic: Callable[[], float], name: str
    ) -> None:
        self.table: dict[str, T] = {}
        self.version = 0
        self.name = name
        self._kafka = kafka
        self._topic = topic
        self._decode = msgspec.json.Decoder(of).decode
        self._monotonic = monotonic
        self._fresh_at = float("-inf")
        self._next: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()

    async def start(self) -> None:
        """Read the topic to its end, then keep following in the background; once, however often called."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._follow())
        await self.wait_fresh(float("inf"))

    async def stop(self) -> None:
        """Stop following; the table stays as it was."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def lag_s(self) -> float:
        """Seconds since the view was last known to be complete; infinite before the first time."""
        return self._monotonic() - self._fresh_at

    async def wait_fresh(self, limit_s: float) -> None:
        """Return once the view is at most `limit_s` old (`inf`: once it was complete at all)."""
        while not (self.lag_s() <= limit_s and self._fresh_at > float("-inf")):
            if self._task is not None and self._task.done():
                await self._task
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.5)

    async def wait_offset(self, partition: int, offset: int) -> None:
        """Return once the record at `offset` has been taken in: read-your-writes."""
        while self._next.get(partition, 0) <= offset:
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.5)

    async def _follow(self) -> None:
        while True:
            try:
                await self._session()
            except KafkaError as error:
                log.warning("follower_interrupted", table=self.name, error=type(error).__name__)
                await asyncio.sleep(0.5)

    async def _session(self) -> None:
        consumer = AIOKafkaConsumer(
            self._topic,
            **self._kafka,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_POLL_MS,
        )
        await consumer.start()
        try:
            partitions = sorted(consumer.partitions_for_topic(self._topic) or ())
            tps = [TopicPartition(self._topic, number) for number in partitions]
            consumer.unsubscribe()
            consumer.assign(tps)
            for tp in tps:
                consumer.seek(tp, self._next.get(tp.partition, 0))
            probed = float("-inf")
            while True:
                ends: dict[TopicPartition, int] | None = None
                now = self._monotonic()
                if now - probed >= _PROBE_S:
                    ends, probed = await consumer.end_offsets(tps), now
                await self._poll(consumer, tps, ends, now)
        finally:
            await consumer.stop()

    async def _poll(
        self,
        consumer: AIOKafkaConsumer,
        tps: list[TopicPartition],
        ends: dict[TopicPartition, int] | None,
        probed: float,
    ) -> None:
        """Take in what has arrived; with `ends`, until they are reached: then the view was complete
        as of when they were asked for."""
        while True:
            got = await consumer.getmany(timeout_ms=_POLL_MS)
            for tp, records in got.items():
                for record in records:
                    self._take(record.key.decode(), record.value)
                self._next[tp.partition] = records[-1].offset + 1
            if ends is not None:
                positions = {tp: await consumer.position(tp) for tp in tps}
                if any(positions[tp] < ends[tp] for tp in tps):
                    continue
                self._fresh_at = probed
            if got or ends is not None:
                async with self._changed:
                    self._changed.notify_all()
            return

    def _take(self, key: str, value: bytes | None) -> None:
        self.version += 1
        if value is None:
            self.table.pop(key, None)
            return
        try:
            self.table[key] = self._decode(value)
        except msgspec.DecodeError:
            # A version of the record from the future, or not ours: what is known stays in force.
            log.error("follower_record_unreadable", table=self.name)
