"""Reads how long Kafka keeps the records of topics."""

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.admin import LIMIT_S
from connectors.kafka.client_config import librdkafka_config
from schemas.errors import Unavailable
from schemas.topics import Topic

_SETTING = "retention.ms"


def retention_s(kafka: KafkaConnection, topics: Mapping[str, Topic]) -> dict[str, float]:
    """Return the retention of each topic by full name, seconds; 0 = records are never deleted.

    If a broker does not report it, as the embedded one, the value of the catalogue is used.

    Raises:
        Unavailable: the broker does not answer.
    """
    admin = AdminClient(librdkafka_config(kafka))
    asked = admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in topics], request_timeout=LIMIT_S
    )
    kept = {}
    for resource, future in asked.items():
        try:
            entry = future.result().get(_SETTING)
            value = None if entry is None else entry.value
        except KafkaException as failed:
            error: KafkaError = failed.args[0]
            if error.retriable() or error.code() < 0:  # a negative code is librdkafka's own: no broker answered
                raise Unavailable("kafka_unavailable", f"{resource.name}: {error.str()}") from failed
            value = None
        kept[resource.name] = max(0.0, int(value or topics[resource.name].config.get(_SETTING, "-1")) / 1000)
    return kept
