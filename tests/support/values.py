"""What `connectors.connections` makes of settings, for tests that begin with those."""

from connectors.connections import kafka_connection, topic_layout
from connectors.kafka.connection import KafkaConnection, TopicLayout
from connectors.settings import Settings


def topics_of(settings: Settings) -> tuple[KafkaConnection, TopicLayout]:
    """Arguments of `create_topics` and `check_topics`."""
    return kafka_connection(settings), topic_layout(settings)
