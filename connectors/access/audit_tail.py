"""Reads the end of `billing.audit`, which the next line follows."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from connectors.access.audit_chain import AuditLine, ChainHead, after, chain_head_of, line_of
from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.errors import topic_missing
from connectors.kafka.topic_scan import asked, ended, reader, translated_errors
from schemas.errors import MeterbridgeError, Unavailable

#: Limits in seconds: for one answer of Kafka, and for reading new lines.
_ANSWER_S, _READ_S = 5.0, 20.0
#: Number of offsets that are read from the end first, and the factor for the next attempt if they are too few.
_LOOKED_AT, _MORE = 64, 16
#: The maximum age of a server's position in seconds, if the server writes many lines.
FRESH_S: Final = 0.2


class Tail:
    """Follows the end of the audit topic. It must not be used by several threads at the same time."""

    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._consumer: Consumer | None = None
        self._next = -1
        self._chain_head = ChainHead()

    def chain_head(self) -> ChainHead:
        """Return the position at the current end of the topic. Raises: Unavailable `kafka_unavailable`."""
        with self._consuming() as consumer:
            low, high = self._ends(consumer)
            if not low <= self._next <= high:
                self._begin(consumer, low, high)
            for line in self._read(consumer, self._next, high):
                self._chain_head = (
                    after(self._chain_head, line) if line.is_chained or self._chain_head.covered else self._chain_head
                )
            self._next = high
        return self._chain_head

    def whole(self) -> tuple[list[AuditLine], bool]:
        """Return all lines of the topic, and whether none has expired. Raises: Unavailable."""
        with self._consuming() as consumer:
            low, high = self._ends(consumer)
            return self._read(consumer, low, high), low == 0

    def latest(self, most: int) -> tuple[list[AuditLine], bool]:
        """Return at most `most` lines at the end of the topic, and whether these are all lines that were ever written.
        Raises: Unavailable.
        """
        with self._consuming() as consumer:
            low, high = self._ends(consumer)
            start = max(low, high - most)
            return self._read(consumer, start, high), start == 0

    def close(self) -> None:
        """Close the connection."""
        consumer, self._consumer, self._next = self._consumer, None, -1
        if consumer is not None:
            consumer.close()

    @contextmanager
    def _consuming(self) -> Iterator[Consumer]:
        """Yield the consumer. After an error, close it; the next call makes a new one. Raises: Unavailable, TopicProblem."""
        try:
            with translated_errors(self._topic):
                if self._consumer is None:
                    self._consumer = reader(self._kafka)
                    if self._consumer.list_topics(self._topic, timeout=_ANSWER_S).topics[self._topic].error is not None:
                        raise topic_missing(self._topic)
                yield self._consumer
        except MeterbridgeError:
            self.close()
            raise

    def _ends(self, consumer: Consumer) -> tuple[int, int]:
        partition = TopicPartition(self._topic, 0)
        ends: tuple[int, int] = asked(partial(consumer.get_watermark_offsets, partition, timeout=_ANSWER_S))
        return ends

    def _begin(self, consumer: Consumer, low: int, high: int) -> None:
        looked_at = _LOOKED_AT
        while True:
            start = max(low, high - looked_at)
            chain_head = chain_head_of(self._read(consumer, start, high), from_the_beginning=start == low)
            if chain_head is not None:
                self._chain_head, self._next = chain_head, high
                return
            looked_at *= _MORE

    def _read(self, consumer: Consumer, start: int, end: int) -> list[AuditLine]:
        found: list[AuditLine] = []
        if start >= end:
            return found
        at, until = start, time.monotonic() + _READ_S
        consumer.assign([TopicPartition(self._topic, 0, start)])
        while at < end:
            if time.monotonic() > until:
                raise Unavailable("kafka_unavailable", f"{self._topic} could not be read to its end")
            for message in consumer.consume(1000, 0.05):
                offset, is_end = message.offset() or 0, ended(message)
                at = offset if is_end else offset + 1
                if not is_end and at <= end:
                    found.append(line_of(offset, message.value() or b""))
        return found


class Tips:
    """The position for a server; callers at the same time share one read.

    Args:
        monotonic: seconds.
    """

    def __init__(self, kafka: KafkaConnection, topic: str, monotonic: Callable[[], float]) -> None:
        self._tail = Tail(kafka, topic)
        self._monotonic = monotonic
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._chain_head = ChainHead()

    async def chain_head(self) -> ChainHead:
        """Return the position, at most `FRESH_S` seconds old. Raises: Unavailable."""
        async with self._looking:
            if self._monotonic() - self._looked_at > FRESH_S:
                self._chain_head = await asyncio.to_thread(self._tail.chain_head)
                self._looked_at = self._monotonic()
            return self._chain_head

    def close(self) -> None:
        """Close the connection."""
        self._tail.close()
