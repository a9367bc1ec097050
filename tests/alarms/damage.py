"""Changes that a trial makes to records and settings of Kafka's topics without the product's knowledge."""

import contextlib

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from schemas.ledger import POSITION_KEY


def keep(bootstrap: str, topic: str, retention_ms: int) -> None:
    """Set how long a topic keeps records."""
    entry = ConfigEntry("retention.ms", str(retention_ms), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)


def cut(bootstrap: str, topic: str) -> None:
    """Delete every record of a topic."""
    with contextlib.closing(Consumer({"bootstrap.servers": bootstrap, "group.id": "trial"})) as consumer:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions}
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.delete_records([TopicPartition(topic, *place) for place in ends.items()]).values():
        future.result(30)


def position(bootstrap: str, topic: str) -> tuple[TopicPartition, bytes]:
    """The last position of the first ledger that has one, and its partition."""
    config = {"bootstrap.servers": bootstrap, "group.id": "trial", "enable.partition.eof": True}
    with contextlib.closing(Consumer({**config, "isolation.level": "read_committed"})) as consumer:
        for number in consumer.list_topics(topic, timeout=20).topics[topic].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number))
            consumer.assign([TopicPartition(topic, number, low)])
            found = None
            while low < high and (message := consumer.poll(10)) is not None and message.error() is None:
                if message.key() == POSITION_KEY:
                    found = message.value()
            if found is not None:
                return TopicPartition(topic, number), found
    raise AssertionError("no ledger has written a position")


def first(bootstrap: str, topic: str) -> bytes:
    """The value of the first record of partition 0."""
    with contextlib.closing(Consumer({"bootstrap.servers": bootstrap, "group.id": "trial"})) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(20)
    assert message is not None
    assert message.value() is not None
    return message.value() or b""


def put(bootstrap: str, place: TopicPartition, value: bytes | None, key: bytes = POSITION_KEY) -> None:
    """Write a record to a partition."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    producer.produce(place.topic, value, key, partition=place.partition)
    assert producer.flush(20) == 0
