"""The content of a topic, read once from its beginning to its end."""

from confluent_kafka import Consumer, TopicPartition

from connectors.config.settings import Settings
from schemas.topics import Topic
from tests.support.eventually import PATIENCE


def stored(settings: Settings, topic: Topic) -> list[tuple[str, bytes]]:
    """Key and value of every committed record."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": "stored",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    name = settings.topic_prefix + topic.name
    try:
        count = len(consumer.list_topics(name, timeout=10 * PATIENCE).topics[name].partitions)
        consumer.assign([TopicPartition(name, number, 0) for number in range(count)])
        found, ended = [], 0
        while ended < count:
            for message in consumer.consume(1000, 0.02):
                ended += message.error() is not None
                if message.error() is None:
                    found.append(((message.key() or b"").decode(), message.value()))
    finally:
        consumer.close()
    return found
