"""Reads the input of the oracle: topics as a read_committed reader sees them, ledgers from their changelog, and the
sandbox.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import aiohttp
import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.ledger import Position
from schemas.records import EnrichedUsage, LagoEvent, Receipt
from schemas.topics import TopicNames
from streams.core.metering.ledger_state import LedgerState
from streams.runtime.plain_consumer import reading
from streams.state.changelog import FETCHING, read, restore
from streams.state.step_writes import RAW_PARTITION, SEAL_SEQ
from tests.faults.oracle import Found, SentEvent
from tests.support.eventually import PATIENCE

_LIMIT_S = 30.0


class Evidence:
    """The sources: one broker, one catalogue of topics, one sandbox."""

    def __init__(self, bootstrap: str, topics: TopicNames, sandbox_url: str) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._sandbox = sandbox_url

    async def stats(self) -> dict[str, Any]:
        """Return the sandbox's sums."""
        stats: dict[str, Any] = msgspec.json.decode(await self._get("/__stats"))
        return stats

    async def all_settled(self) -> bool:
        """Return whether all work is finished: every raw record folded, no window left, every event completed."""
        ends = await asyncio.to_thread(self._ends, self._topics.raw)
        ledger = await self._ledgers(ends)
        if any(ledger[number].position.next != end or ledger[number].windows for number, end in ends.items()):
            return False
        receipts = await asyncio.to_thread(self._receipts)
        last = {receipt.transaction_id: receipt.status for receipt in receipts}
        return all(status == "completed" for status in last.values())

    async def gather(self) -> Found:
        """Read everything."""
        topics = self._topics
        ends = await asyncio.to_thread(self._ends, topics.raw)
        events = (await self._get("/__events")).splitlines()
        return Found(
            stats=await self.stats(),
            lago_events=[msgspec.json.decode(line) for line in events],
            raw_ends=ends,
            ledger=await self._ledgers(ends),
            events=await asyncio.to_thread(self._events),
            enriched=await asyncio.to_thread(self._enriched),
            receipts=await asyncio.to_thread(self._receipts),
            rejected=await asyncio.to_thread(self._count, topics.rejected),
            dead=await asyncio.to_thread(self._count, topics.dlq),
        )

    async def _ledgers(self, ends: dict[int, int]) -> dict[int, LedgerState]:
        ledger = {}
        for partition in ends:
            async with reading(
                bootstrap_servers=self._bootstrap, isolation_level="read_committed", **FETCHING
            ) as consumer:
                snapshot = await read(consumer, self._topics.changelog, partition)
            ledger[partition] = LedgerState(Position())
            restore(ledger[partition], snapshot, 0)
        return ledger

    def _events(self) -> list[SentEvent]:
        decode = msgspec.json.Decoder(LagoEvent).decode
        sent = []
        for record in self._records(self._topics.events):
            headers = dict(record.headers() or ())
            partition, seal_seq = int(headers[RAW_PARTITION]), int(headers[SEAL_SEQ])
            sent.append(SentEvent(partition, seal_seq, decode(_value(record))))
        return sent

    def _enriched(self) -> dict[int, list[EnrichedUsage]]:
        decode = msgspec.json.Decoder(EnrichedUsage).decode
        enriched: dict[int, list[EnrichedUsage]] = {}
        for record in self._records(self._topics.enriched):
            enriched.setdefault(record.partition() or 0, []).append(decode(_value(record)))
        return enriched

    def _receipts(self) -> list[Receipt]:
        decode = msgspec.json.Decoder(Receipt).decode
        return [decode(_value(record)) for record in self._records(self._topics.receipts)]

    def _count(self, topic: str) -> int:
        return sum(1 for _ in self._records(topic))

    def _ends(self, topic: str) -> dict[int, int]:
        """High watermarks: for the raw topic, which no transaction writes, the number of records."""
        with closing(self._consumer()) as consumer:
            return {
                partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_LIMIT_S)[1]
                for partition in self._partitions(consumer, topic)
            }

    def _records(self, topic: str) -> Iterator[Message]:
        """Yield every committed record of the topic, each partition in order."""
        with closing(self._consumer()) as consumer:
            left = set(self._partitions(consumer, topic))
            consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
            deadline = time.monotonic() + _LIMIT_S * PATIENCE
            while left:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{topic} gave nothing for {_LIMIT_S:.0f} s")
                for record in consumer.consume(5000, timeout=0.1):
                    deadline = time.monotonic() + _LIMIT_S * PATIENCE
                    error = record.error()
                    if error is None:
                        yield record
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(record.partition())
                    elif not error.retriable():
                        raise KafkaException(error)

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "oracle",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )

    def _partitions(self, consumer: Consumer, topic: str) -> list[int]:
        return sorted(consumer.list_topics(topic, timeout=_LIMIT_S).topics[topic].partitions)

    async def _get(self, path: str) -> bytes:
        async with aiohttp.ClientSession() as session, session.get(self._sandbox + path) as response:
            response.raise_for_status()
            return await response.read()


def _value(record: Message) -> bytes:
    value: bytes | None = record.value()
    assert value is not None, "a record without a value"
    return value
