"""One transactional producer for one input partition: writes and the input's offset, or nothing.

The transactional id names the role and the partition, so starting it fences the partition's previous
owner and settles its open transaction (Kafka KIP-98). An abandoned transaction needs no abort: the
next owner's start aborts it.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

log = structlog.get_logger(__name__)

#: Longer than any commit, shorter than what readers may be held back by a dead owner.
TRANSACTION_TIMEOUT_MS = 12_000
_BATCH_BYTES = 512 << 10
_REQUEST_BYTES = 8 << 20
_STOP_S = 1.0

Headers = list[tuple[str, bytes]]
_NO_HEADERS: Headers = []  # aiokafka's compiled code takes a list and nothing else


_Sent = tuple[tuple[str, int], int, asyncio.Future[Any]]


class Write(NamedTuple):
    """One record to write; `partition` is explicit, or that of `key` where it is -1."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = _NO_HEADERS


def partition_of(key: bytes, partitions: int) -> int:
    """Where Kafka's default partitioner (murmur2) puts a key; all our clients agree on it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


class TransactionalWriter:
    """Writes of one input partition; started once, never reused after an error."""

    def __init__(self, kafka: Mapping[str, Any], transactional_id: str) -> None:
        self._producer = AIOKafkaProducer(
            **kafka,
            transactional_id=transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            acks="all",
            compression_type="lz4",
            max_batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
        )
        self._counts: dict[str, int] = {}
        self.busy = False

    async def start(self) -> None:
        """Fence the previous owner. Raises aiokafka's errors."""
        await self._producer.start()

    async def commit(
        self, writes: Iterable[Write], source: TopicPartition, offset: int | None, group: str
    ) -> dict[tuple[str, int], int]:
        """Write all and move the group's offset of `source` to `offset`, in one transaction.

        Returns for each topic partition written to the offset after the last record.
        After an error the outcome is unknown: abandon this writer, start another and read back.
        """
        self.busy = True
        try:
            await self._producer.begin_transaction()
            sent = await self._send(writes)
            if offset is not None:
                await self._producer.send_offsets_to_transaction({source: offset}, group)
            ends = {place: (await future).offset + count for place, count, future in sent}
            await self._producer.commit_transaction()
            return ends
        finally:
            self.busy = False

    async def _send(self, writes: Iterable[Write]) -> list[_Sent]:
        """Batches by topic partition: 1-2 us a record, where `send` costs 20."""
        batches: dict[tuple[str, int], Any] = {}
        sent: list[_Sent] = []
        for topic, partition, key, value, headers in writes:
            if partition < 0:
                partition = partition_of(key or b"", await self._partitions(topic))
            place = (topic, partition)
            batch = batches.get(place)
            if batch is None:
                batch = batches[place] = self._producer.create_batch()
            if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                sent.append(await self._hand_over(place, batch))
                batch = batches[place] = self._producer.create_batch()
                batch.append(timestamp=None, key=key, value=value, headers=headers)
        for place, batch in batches.items():
            sent.append(await self._hand_over(place, batch))
        return sent

    async def _hand_over(self, place: tuple[str, int], batch: Any) -> _Sent:
        batch.close()
        future = await self._producer.send_batch(batch, place[0], partition=place[1])
        return place, batch.record_count(), future

    async def _partitions(self, topic: str) -> int:
        count = self._counts.get(topic)
        if count is None:
            count = self._counts[topic] = len(await self._producer.partitions_for(topic))
        return count

    async def stop(self) -> None:
        """Let go of the connections; what was not committed is the next owner's to abort."""
        stopping = asyncio.ensure_future(self._producer.stop())
        done, _ = await asyncio.wait({stopping}, timeout=_STOP_S)
        if not done:
            stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError, KafkaError):
            await stopping
