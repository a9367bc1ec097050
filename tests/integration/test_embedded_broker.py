"""The demo's broker: enough of Kafka for this product's own clients, with clear errors for the rest."""

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from connectors.config.connections import kafka_connection
from connectors.config.settings import Settings, load_settings
from connectors.demo.broker import embedded_broker
from connectors.demo.broker_relay import WAIT_MS, fixed, hurried
from connectors.kafka.admin import check_topics, topic_ids
from schemas.topics import EVENTS, RAW, RECEIPTS
from streams.runtime.transactions import TransactionalWriter, Write
from tests.support.eventually import PATIENCE
from tests.support.values import topics_of

PARTITIONS = 4
INPUT = TopicPartition(RAW.name, 0)


@pytest.fixture
def broker() -> Iterator[str]:
    with embedded_broker(PARTITIONS) as bootstrap:
        yield bootstrap


def settings(bootstrap: str, partitions: int = PARTITIONS) -> Settings:
    return load_settings({"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "KAFKA_PARTITIONS": str(partitions)})


def test_the_embedded_broker_has_every_topic_of_the_catalogue_with_the_partitions_that_a_worker_checks(
    broker: str,
) -> None:
    assert check_topics(*topics_of(settings(broker))) == []
    assert any("4 partitions where 5" in sentence for sentence in check_topics(*topics_of(settings(broker, 5))))


def test_the_embedded_brokers_topics_have_ids_that_no_other_broker_uses(broker: str) -> None:
    """A transaction id starts with it; events of two brokers must not be mistaken for each other."""
    with embedded_broker(PARTITIONS) as another:
        here, there = (
            topic_ids(kafka_connection(settings(where)), [RAW.name])[RAW.name] for where in (broker, another)
        )
    assert here
    assert here != there


async def test_transactional_records_are_read_across_transaction_ends(broker: str) -> None:
    """Its control batches have no checksum: without the relay aiokafka would stop at the first."""
    writer = TransactionalWriter({"bootstrap_servers": broker}, "a-writer")
    await writer.start()
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, isolation_level="read_committed")
    await consumer.start()
    try:
        for number in range(5):
            value = b"%d" % number
            writes = [Write(topic, 0, b"k", value, [("h", value)]) for topic in (EVENTS.name, RECEIPTS.name)]
            await writer.commit(writes, INPUT, number, "a-group")
        here = TopicPartition(EVENTS.name, 0)
        consumer.assign([here])
        consumer.seek(here, 0)
        found = [await asyncio.wait_for(consumer.getone(), 10 * PATIENCE) for _ in range(5)]
        assert [(record.value, record.headers) for record in found] == [
            (b"%d" % n, (("h", b"%d" % n),)) for n in range(5)
        ]
    finally:
        await consumer.stop()
        await writer.stop()


async def test_a_record_is_read_soon_after_a_fetch_that_found_nothing(broker: str) -> None:
    """The broker answers such a fetch only after its full wait: the consumer below asks for a minute."""
    writer = TransactionalWriter({"bootstrap_servers": broker}, "a-writer")
    await writer.start()
    consumer = AIOKafkaConsumer(RAW.name, bootstrap_servers=broker, fetch_max_wait_ms=60_000)
    await consumer.start()
    try:
        assert await consumer.getmany(timeout_ms=200) == {}
        await writer.commit([Write(RAW.name, 1, None, b"late")], INPUT, None, "a-group")
        assert (await asyncio.wait_for(consumer.getone(), 10 * PATIENCE)).value == b"late"
    finally:
        await consumer.stop()
        await writer.stop()


def test_the_wait_is_shortened_only_for_a_fetch_and_never_extended() -> None:
    def request(key: int, version: int, wait_ms: int, client: bytes | None) -> bytes:
        name = b"\xff\xff" if client is None else len(client).to_bytes(2, "big") + client
        head = key.to_bytes(2, "big") + version.to_bytes(2, "big") + b"\0\0\0\7" + name
        return head + b"\xff\xff\xff\xff" + wait_ms.to_bytes(4, "big") + b"rest"

    for client in (b"a-client", b"", None):
        assert hurried(request(1, 4, 1500, client)) == request(1, 4, WAIT_MS, client)
        assert hurried(request(1, 11, 7, client)) == request(1, 11, 7, client)
        assert hurried(request(0, 4, 1500, client)) == request(0, 4, 1500, client)
        assert hurried(request(1, 12, 1500, client)) == request(1, 12, 1500, client)


def test_an_answer_without_a_control_batch_passes_unchanged() -> None:
    for answer in (b"", b"\x00\x00\x00\x42", b"any other bytes" * 100):
        assert fixed(answer) is answer
