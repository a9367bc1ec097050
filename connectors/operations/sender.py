"""The Kafka producer of an operator's command. On return the records are durable; otherwise it raises."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.admin import FIRST_ANSWER_S, kafka_errors
from connectors.kafka.client_config import librdkafka_config, producer_config
from connectors.kafka.errors import topic_missing
from schemas.errors import Unavailable
from schemas.plurals import numbered

_ANSWER_S = 30.0


class Outgoing(NamedTuple):
    """A record to send; `partition`: -1 = the key decides; `time_ms`: milliseconds since 1970 UTC, 0 = now."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = -1
    headers: tuple[tuple[str, bytes], ...] = ()
    time_ms: int = 0


class CommandProducer:
    """An idempotent producer of one command."""

    def __init__(self, kafka: KafkaConnection) -> None:
        security = {name: value for name, value in librdkafka_config(kafka).items() if name != "logger"}
        config: dict[str, Any] = producer_config(
            kafka.servers,
            answer_within_s=_ANSWER_S,
            client_id="meterbridge-operations",
            security=security,
        )
        self._producer = Producer({**config, "logger": logging.getLogger("librdkafka")})
        self._failed: KafkaError | None = None
        self._topics: set[str] = set()

    def send(self, records: Iterable[Outgoing], sent: Callable[[int], None] = lambda _count: None) -> int:
        """Send records, and wait until all in-sync replicas have acknowledged them; return their number.

        Raises:
            TopicProblem: `topic_missing`: nothing was sent.
            Unavailable: at least one may not be durable; others may be. They may be sent again: the meter recognises repeats.
        """
        count, self._failed = 0, None
        for record in records:
            self._check(record.topic)
            self._put(record)
            count += 1
            sent(1)
        left = self._producer.flush(_ANSWER_S)
        if self._failed is not None or left:
            raise Unavailable(
                "kafka_unavailable", self._failed.str() if self._failed else f"{numbered(left, 'record')} unanswered"
            )
        return count

    def _check(self, topic: str) -> None:
        """Check that the topic exists. librdkafka would wait half a minute for it, and then report that Kafka does not answer."""
        if topic not in self._topics:
            with kafka_errors("list topics"):
                self._topics = set(self._producer.list_topics(timeout=FIRST_ANSWER_S).topics)
            if topic not in self._topics:
                raise topic_missing(topic)

    def _put(self, record: Outgoing) -> None:
        more: dict[str, Any] = {"timestamp": record.time_ms} if record.time_ms else {}
        if record.partition >= 0:
            more["partition"] = record.partition
        headers = list(record.headers)
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, headers=headers, on_delivery=self._delivered, **more
                )
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise Unavailable("kafka_unavailable", error.args[0].str()) from error
            else:
                self._producer.poll(0)
                return

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        self._failed = self._failed or error
