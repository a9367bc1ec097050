"""A producer with real Kafka whose machine has a wrong clock: every record is stored, once."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from connectors.config.settings import Settings
from connectors.kafka.admin import check_topics, create_topics
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from schemas.topics import RAW
from tests.support.eventually import eventually
from tests.support.ingress import Stored, read_topic
from tests.support.kafka import Kafka
from tests.support.values import topics_of

HOUR_MS = 3_600_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class ProducerSetup:
    def __init__(self, kafka: Kafka, prefix: str) -> None:
        self.kafka, self.topic = kafka, prefix + RAW.name
        self.settings = Settings(kafka_bootstrap_servers=kafka.bootstrap, kafka_partitions=3, topic_prefix=prefix)
        create_topics(*topics_of(self.settings))
        self.restamped = 0

    def stored(self) -> list[Stored]:
        return read_topic(self.kafka.bootstrap, self.topic)

    def reported(self, count: int) -> None:
        self.restamped += count

    @asynccontextmanager
    async def producer(self, clock: Callable[[], int]) -> AsyncIterator[KafkaProducer]:
        config = producer_config(self.kafka.bootstrap, answer_within_s=30)
        producer = KafkaProducer(config, now_ms=clock, on_restamped=self.reported)
        yield producer
        await producer.close()

    def alter(self, setting: str, value: str) -> None:
        entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self.topic, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.kafka.bootstrap})
        admin.incremental_alter_configs([resource])[resource].result()
        eventually(lambda: any(setting in result for result in check_topics(*topics_of(self.settings))))


@pytest.fixture
def ground(kafka: Kafka, topic_prefix: str) -> ProducerSetup:
    return ProducerSetup(kafka, topic_prefix)


async def test_a_record_with_a_clock_that_is_ahead_is_stored_once(ground: ProducerSetup) -> None:
    async with ground.producer(lambda: now_ms() + 25 * HOUR_MS) as producer:
        partition, offset = await producer.send_one((ground.topic, "k", b"a", now_ms() + 25 * HOUR_MS))
        assert offset == 0
        assert await producer.send_one((ground.topic, "k", b"b", now_ms() + 25 * HOUR_MS)) == (partition, 1)
        assert 24 * 3600 <= producer.clock_ahead_s() <= 25 * 3600
    assert [one.value for one in ground.stored()] == [b"a", b"b"]
    assert ground.restamped == 2


async def test_records_in_the_batch_of_a_refused_record_are_stored_with_it_once(ground: ProducerSetup) -> None:
    """Kafka refuses the whole batch; the order of a customer's records is kept."""
    behind, ahead = now_ms() - 72 * HOUR_MS, now_ms() + 25 * HOUR_MS
    records = [(ground.topic, "k", b"%d" % n, at) for n, at in enumerate([behind, ahead, behind, ahead, ahead])]
    async with ground.producer(lambda: now_ms() + 25 * HOUR_MS) as producer:
        assert await producer.send_all(records) == {}
        assert await producer.send_all(records) == {}
    assert [one.value for one in ground.stored()] == [b"0", b"1", b"2", b"3", b"4"] * 2
    assert all(one.timestamp_ms <= now_ms() + HOUR_MS for one in ground.stored())
    assert [one.timestamp_ms for one in ground.stored()][5:8:2] == [behind, behind]


async def test_once_the_clock_is_right_records_have_its_time_again(ground: ProducerSetup) -> None:
    ahead_ms = 25 * HOUR_MS
    async with ground.producer(lambda: now_ms() + ahead_ms) as producer:
        await producer.send_all([(ground.topic, "k", b"a", now_ms() + ahead_ms)])
        assert producer.clock_ahead_s() > 0
        ahead_ms = 0
        begun = now_ms()
        await producer.send_all([(ground.topic, "k", b"b", begun)])
        assert producer.clock_ahead_s() == 0
    assert ground.stored()[1].timestamp_ms == begun


async def test_a_record_that_is_too_old_for_a_topic_is_stored_with_the_present_time(ground: ProducerSetup) -> None:
    """An operator's limit on old records must not stop a spool that waited for days."""
    ground.alter("message.timestamp.before.max.ms", str(HOUR_MS))
    old = now_ms() - 72 * HOUR_MS
    async with ground.producer(now_ms) as producer:
        assert await producer.send_all([(ground.topic, "k", b"old", old), (ground.topic, "k", b"new", now_ms())]) == {}
        assert producer.clock_ahead_s() == 0
    assert [one.value for one in ground.stored()] == [b"old", b"new"]
    assert ground.stored()[0].timestamp_ms > old + 71 * HOUR_MS


@pytest.mark.parametrize(
    ("setting", "value"),
    [("message.timestamp.after.max.ms", "9223372036854775807"), ("message.timestamp.before.max.ms", "86400000")],
)
def test_a_topic_with_another_limit_is_reported_with_the_command_that_repairs_it_and_stops_nothing(
    ground: ProducerSetup, setting: str, value: str
) -> None:
    ground.alter(setting, value)
    [result] = check_topics(*topics_of(ground.settings))
    assert f"{ground.topic} has {setting}={value} where {RAW.config[setting]} is expected" in result
    assert f"kafka-configs.sh --alter --entity-type topics --entity-name {ground.topic}" in result
    assert check_topics(*topics_of(ground.settings), to_start=True) == []
