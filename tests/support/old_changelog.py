"""A changelog that is put back to an earlier state, and a group whose offsets are moved by hand."""

from collections.abc import Sequence
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.kafka.admin import create_topics
from tests.support.eventually import PATIENCE, eventually
from tests.support.stage import Stage
from tests.support.values import topics_of


def put_back(stage: Stage, records: Sequence[Any]) -> None:
    """Create the changelog again with these records of an earlier `Stage.read` only, as if its tail was lost."""
    name = stage.topics.changelog
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    admin.delete_topics([name])[name].result()
    eventually(lambda: name not in admin.list_topics(timeout=10 * PATIENCE).topics)
    create_topics(*topics_of(stage.settings))
    append(stage, records)


def append(stage: Stage, records: Sequence[Any]) -> None:
    """Write records of an earlier `Stage.read` of the changelog."""
    producer = Producer({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    for record in records:
        producer.produce(stage.topics.changelog, record.value(), record.key(), partition=record.partition())
    assert producer.flush(10 * PATIENCE) == 0


def move_group(stage: Stage, group: str, offsets: dict[int, int]) -> None:
    """Set the group's offsets of the raw topic, by partition, as Kafka's own command does. The group has no member."""
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    places = [TopicPartition(stage.topics.raw, partition, offset) for partition, offset in offsets.items()]
    for moved in admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, places)]).values():
        moved.result(30 * PATIENCE)
