"""Follows `billing.receipts` from its beginning, so that totals survive a restart without a database.

Nothing is kept but the tallies (streams/core/tally.py); what is counted goes back as far as the topic does.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from schemas.records import Receipt
from streams.core.tally import Tally, Totals, totals

_POLL_MS = 250
_PROBE_S = 1.0
#: Counted without a pause: bounds how long the event loop stands still.
_BATCH = 1000

_log = structlog.get_logger(__name__)
_decode = msgspec.json.Decoder(Receipt).decode


class ReceiptsFollower:
    """Totals of all receipts there are; group-less, like every follower.

    Args:
        kafka: connection options for aiokafka.
        topic: `billing.receipts` with its prefix.
    """

    def __init__(self, kafka: Mapping[str, Any], topic: str, monotonic: Callable[[], float]) -> None:
        self._kafka = kafka
        self._topic = topic
        self._monotonic = monotonic
        self._fresh_at = float("-inf")
        self._tallies: dict[int, Tally] = {}
        self._next: dict[int, int] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read in the background."""
        self._task = asyncio.ensure_future(self._follow())

    async def stop(self) -> None:
        """Stop reading; the totals stay as they were."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def lag_s(self) -> float:
        """Seconds since the totals were last known to be complete; infinite before the first time."""
        return self._monotonic() - self._fresh_at

    def totals(self) -> Totals | None:
        """None until the topic has been read to its end once: half a sum would pass for the whole.

        Raises what ended the reading, if anything did.
        """
        if self._task is not None and self._task.done():
            self._task.result()
        return totals(self._tallies.values()) if self._fresh_at > float("-inf") else None

    async def _follow(self) -> None:
        while True:
            try:
                await self._session()
            except KafkaError as error:
                _log.warning("follower_interrupted", table="receipts", error=type(error).__name__)
                await asyncio.sleep(0.5)

    async def _session(self) -> None:
        consumer = AIOKafkaConsumer(
            **self._kafka,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=_POLL_MS,
        )
        await consumer.start()
        try:
            numbers = await _partitions(consumer, self._topic)
            tps = [TopicPartition(self._topic, number) for number in numbers]
            consumer.assign(tps)
            for tp in tps:
                consumer.seek(tp, self._next.get(tp.partition, 0))
            while True:
                await self._catch_up(consumer, tps)
        finally:
            await consumer.stop()

    async def _catch_up(self, consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> None:
        """Read what is there now, then on for a second: the ends are asked for no more often."""
        asked = self._monotonic()
        ends = await consumer.end_offsets(tps)
        complete = False
        while not complete or self._monotonic() - asked < _PROBE_S:
            for tp, records in (await consumer.getmany(timeout_ms=_POLL_MS, max_records=_BATCH)).items():
                self._tallies.setdefault(tp.partition, Tally()).take([one for one in map(_read, records) if one])
                self._next[tp.partition] = records[-1].offset + 1
            if not complete and all([await consumer.position(tp) >= ends[tp] for tp in tps]):
                complete, self._fresh_at = True, asked


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    """The topic's partitions; the first answer about a topic may come before the cluster knows it."""
    await consumer.topics()
    while not (found := consumer.partitions_for_topic(topic)):
        await asyncio.sleep(0.1)
        await consumer.topics()
    return sorted(found)


def _read(record: ConsumerRecord) -> Receipt | None:
    try:
        return _decode(record.value or b"")
    except msgspec.DecodeError:
        _log.error("follower_record_unreadable", table="receipts", partition=record.partition, offset=record.offset)
        return None
