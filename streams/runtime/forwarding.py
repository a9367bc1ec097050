"""Forwards records of a topic with added partitions to the partition of their key.

Such a topic has records whose key now belongs to another partition: older records, and records of producers that do not
know the new partitions yet (docs/adr/0042).
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError

from streams.runtime.transactions import partition_of, stop_producer

#: The most keys whose partition is cached, because murmur2 takes 10 us in Python.
_REMEMBERED = 100_000
#: A longer key is not cached. The ingress writes none.
_LONGEST = 1024
_REQUEST_BYTES = 9 << 20


class Forwarder:
    """Decides which records of one partition belong to other partitions, and sends them there."""

    def __init__(self, kafka: Mapping[str, Any], topic: str, partition: int) -> None:
        self._kafka = kafka
        self._topic = topic
        self._partition = partition
        self._targets: dict[tuple[bytes, int, int], int] = {}
        self._producer: AIOKafkaProducer | None = None

    def target(self, key: bytes | None, grown_from: int, partitions: int) -> int:
        """Return the partition to which a record with `key` belongs.

        Only partitions that took keys from this one are possible, because they know what was counted here. A record of
        any other key was not placed by Kafka's rule, and stays.

        Args:
            grown_from: number of partitions when the ledger of this one was begun.
            partitions: present number of partitions, a multiple of `grown_from`.
        """
        if not key:
            return self._partition
        if len(key) > _LONGEST:
            return self._target(key, grown_from, partitions)
        known = self._targets.get((key, grown_from, partitions))
        if known is None:
            if len(self._targets) >= _REMEMBERED:
                self._targets.clear()
            known = self._targets[key, grown_from, partitions] = self._target(key, grown_from, partitions)
        return known

    def _target(self, key: bytes, grown_from: int, partitions: int) -> int:
        target = partition_of(key, partitions)
        return target if target % grown_from == self._partition else self._partition

    async def send(self, records: Sequence[tuple[ConsumerRecord, int]]) -> None:
        """Send records to their partitions, with the same key, value, time and headers. They are durable on return.

        A process that stops before its offset moves sends them again. The ledger of the target partition recognises the
        repeats.

        Raises:
            KafkaError: an error of aiokafka.
        """
        try:
            producer = await self._started()
            sent = [
                await producer.send(
                    self._topic,
                    record.value,
                    record.key,
                    partition=target,
                    timestamp_ms=record.timestamp,
                    headers=list(record.headers),
                )
                for record, target in records
            ]
            await asyncio.gather(*sent)
        except KafkaError:  # an idempotent producer cannot be used after an error
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close the connections, quickly even if Kafka does not answer. Records without an acknowledgement are sent
        again later.
        """
        producer, self._producer = self._producer, None
        if producer is not None:
            await stop_producer(producer)

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            self._producer = AIOKafkaProducer(
                **self._kafka, enable_idempotence=True, acks="all", max_request_size=_REQUEST_BYTES
            )
            await self._producer.start()
        return self._producer
