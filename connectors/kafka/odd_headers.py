"""Records with a header whose name is not UTF-8, for commands.

confluent-kafka (2.16) cannot read their headers: the first call of `headers` raises a SystemError, and a second one returns a list
that crashes the process. So such a record is read once more by aiokafka (streams/runtime/aiokafka_repairs.py).
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from confluent_kafka import Message

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.admin import LIMIT_S
from connectors.kafka.client_config import aiokafka_config
from schemas.errors import Unavailable
from streams.runtime.event_loop import run_loop
from streams.runtime.plain_consumer import reading


def read_again(kafka: KafkaConnection, message: Message) -> Message:
    """Return the same message with headers that can be read; a name that is not UTF-8 has U+FFFD. Raises: Unavailable."""
    place, offset = TopicPartition(message.topic() or "", message.partition() or 0), message.offset() or 0
    with ThreadPoolExecutor(1) as thread:  # the caller's thread may have an event loop that runs
        return cast("Message", _Reread(thread.submit(run_loop, _read(kafka, place, offset)).result()))


class _Reread:
    """A record of aiokafka with the methods of confluent-kafka's `Message`."""

    def __init__(self, record: ConsumerRecord) -> None:
        self._record = record

    def topic(self) -> str:
        return str(self._record.topic)

    def partition(self) -> int:
        return int(self._record.partition)

    def offset(self) -> int:
        return int(self._record.offset)

    def key(self) -> bytes | None:
        return cast("bytes | None", self._record.key)

    def value(self) -> bytes | None:
        return cast("bytes | None", self._record.value)

    def headers(self) -> list[tuple[str, bytes | None]]:
        return list(self._record.headers)

    def timestamp(self) -> tuple[int, int]:
        return self._record.timestamp_type + 1, self._record.timestamp

    def error(self) -> None:
        return None


async def _read(kafka: KafkaConnection, place: TopicPartition, offset: int) -> ConsumerRecord:
    try:
        async with asyncio.timeout(LIMIT_S), reading(**aiokafka_config(kafka), group_id=None) as consumer:
            consumer.assign([place])
            consumer.seek(place, offset)
            return await consumer.getone()
    except (KafkaError, TimeoutError) as error:
        raise Unavailable("kafka_unavailable", f"{place.topic}: {type(error).__name__}") from error
