"""Kafka is used once its topics are known to be right; until then every write is refused."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from connectors.addresses import kafka_address
from connectors.kafka.admin import check_topics
from connectors.kafka.producer import KafkaProducer, Record
from connectors.kafka.security import librdkafka_config
from connectors.settings import Settings
from schemas.errors import Rejected, TopicProblem, Unavailable

_ANSWER_S, _AGAIN_S = 3.0, 1.0

_log = structlog.get_logger(__name__)


class Gate:
    """The producer behind a gate: a broker may create a missing topic by itself, with the wrong partitions."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._is_open = False

    def shut_because(self) -> str:
        """Why no record can be stored; `""` when it can."""
        if not self._is_open:
            return "topics_unchecked"
        return "" if self._producer.healthy() else "producer_down"

    async def open_when_right(self, settings: Settings) -> None:
        """Return once the topics are found right; a broker that is away is waited for.

        Raises:
            TopicProblem: `topics`: a sentence for each one that is missing or wrong.
        """
        away = False
        while True:
            try:
                complaints = await asyncio.to_thread(partial(check_topics, settings, _ANSWER_S, to_start=True))
                break
            except Unavailable as error:
                if not away:
                    _log.warning(
                        "kafka_awaited", reason=error.reason, detail=error.detail, address=kafka_address(settings)
                    )
                away = True
                await asyncio.sleep(_AGAIN_S)
        if complaints:
            raise TopicProblem("topics", " ".join(complaints))
        self._is_open = True

    def clock_ahead_s(self) -> float:
        """As `KafkaProducer.clock_ahead_s`."""
        return self._producer.clock_ahead_s()

    async def send_all(self, records: Sequence[Record]) -> dict[int, Rejected]:
        """As `KafkaProducer.send_all`."""
        self._check()
        return await self._producer.send_all(records)

    async def send_one(self, record: Record) -> tuple[int, int]:
        """As `KafkaProducer.send_one`."""
        self._check()
        return await self._producer.send_one(record)

    def _check(self) -> None:
        if not self._is_open:
            raise Unavailable("topics_unchecked", "Kafka's topics have not been checked yet")


def kafka_probe(settings: Settings, clock_ahead_s: Callable[[], float] = lambda: 0.0) -> Callable[[], Awaitable[None]]:
    """Asks the cluster for its brokers, and whether it takes this machine's time. Raises: Unavailable."""
    admin = AdminClient(librdkafka_config(settings))

    async def probe() -> None:
        try:
            found = await asyncio.to_thread(admin.list_topics, topic="", timeout=_ANSWER_S)
        except KafkaException as error:
            raise Unavailable("kafka_unavailable", str(error.args[0].name())) from error
        if not found.brokers:
            raise Unavailable("kafka_unavailable", "no broker")
        if (ahead_s := clock_ahead_s()) > 0:
            told = f"this machine's clock is {ahead_s / 3600:.0f} h ahead of Kafka's: set it right; calls are taken meanwhile"
            raise Unavailable("clock_ahead", told)

    return probe
