"""A producer that refuses every record until the topics are checked."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NoReturn

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from connectors.config.kafka_connection import KafkaConnection, TopicLayout
from connectors.kafka.admin import check_topics
from connectors.kafka.client_config import librdkafka_config
from connectors.kafka.errors import in_one
from connectors.kafka.producer import KafkaProducer, Record
from connectors.kafka.reachability import ANSWER_S, KafkaReachability
from connectors.kafka.startup import KafkaWait, when_kafka_answers
from schemas.errors import Rejected, TopicProblem, Unavailable


class CheckedProducer:
    """A producer that sends only after a check of the topics. Otherwise the broker might create a missing topic with
    wrong partitions.
    """

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._is_open = False
        #: Set once the topics are right, or Kafka did not answer a question about them.
        self.asked = asyncio.Event()
        self._watch = KafkaReachability()

    def shut_because(self) -> str:
        """Return why no record can be stored; `""` = records can be stored."""
        if not self._is_open:
            return "topics_unchecked"
        return self._watch.away_because if self._producer.healthy() else "producer_down"

    async def open_when_right(self, kafka: KafkaConnection, layout: TopicLayout) -> None:
        """Wait until Kafka answers, then check the topics and accept records.

        Raises:
            TopicProblem: `topics`: a sentence for each topic that is missing or wrong.
        """

        async def ask_again(pause_s: float) -> None:
            self.asked.set()
            await asyncio.sleep(pause_s)

        asking = partial(check_topics, kafka, layout, ANSWER_S, to_start=True)
        complaints = await when_kafka_answers(asking, KafkaWait(kafka.servers), ask_again)
        if complaints:
            raise TopicProblem("topics", in_one(complaints))
        self._is_open = True
        self.asked.set()

    async def watch(self, kafka: KafkaConnection) -> NoReturn:
        """Check until cancelled whether Kafka answers, for `shut_because`. The result refuses no record; a caller may
        always try to send.
        """
        await self._watch.work(_asking(kafka), KafkaWait(kafka.servers))

    def clock_ahead_s(self) -> float:
        """See `KafkaProducer.clock_ahead_s`."""
        return self._producer.clock_ahead_s()

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        """See `KafkaProducer.send_all`."""
        self._check()
        refused = await self._producer.send_all(records)
        self._watch.answered()
        return refused

    async def send_one(self, record: Record) -> tuple[int, int]:
        """See `KafkaProducer.send_one`."""
        self._check()
        return await self._producer.send_one(record)

    def _check(self) -> None:
        if not self._is_open:
            raise Unavailable(
                "topics_unchecked",
                "Kafka has not answered at KAFKA_BOOTSTRAP_SERVERS since the start, so its topics are not checked",
            )


def kafka_probe(
    kafka: KafkaConnection, clock_ahead_s: Callable[[], float] = lambda: 0.0
) -> Callable[[], Awaitable[None]]:
    """Check that Kafka has brokers and accepts the time of this machine. Raises: Unavailable."""
    ask = _asking(kafka)

    async def probe() -> None:
        await ask()
        if (ahead_s := clock_ahead_s()) > 0:
            warning = f"this machine's clock is {ahead_s / 3600:.0f} h ahead of Kafka's: correct it; calls are accepted all the same"
            raise Unavailable("clock_ahead", warning)

    return probe


def _asking(kafka: KafkaConnection) -> Callable[[], Awaitable[None]]:
    """Send a small request to the cluster. Raises: Unavailable.

    After a failed request a new client is used. An old client whose broker was killed or frozen may need a minute to
    connect again, long after Kafka answers.
    """
    # Reconnect within a second after Kafka is back, not after ten.
    config = {**librdkafka_config(kafka), "reconnect.backoff.max.ms": 1000}
    kept: list[AdminClient] = []

    def answer() -> int:
        admin = kept.pop() if kept else AdminClient(config)
        brokers = admin.list_topics(topic="", timeout=ANSWER_S).brokers
        kept.append(admin)
        return len(brokers)

    async def ask() -> None:
        try:
            brokers = await asyncio.to_thread(answer)
        except KafkaException as error:
            raise Unavailable("kafka_unavailable", str(error.args[0].name())) from error
        if not brokers:
            raise Unavailable("kafka_unavailable", "no broker")

    return ask
