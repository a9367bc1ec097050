"""The values that `connectors.config.connections` builds from settings, for tests that start with settings."""

from connectors.config.connections import kafka_connection, topic_layout
from connectors.config.kafka_connection import KafkaConnection, TopicLayout
from connectors.config.settings import Settings


def topics_of(settings: Settings) -> tuple[KafkaConnection, TopicLayout]:
    """Arguments of `create_topics` and `check_topics`."""
    return kafka_connection(settings), topic_layout(settings)
