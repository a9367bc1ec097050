"""What an operation must know of the deployment that it works on, as one value (connectors/config/connections.py makes it)."""

from dataclasses import dataclass

from connectors.config.kafka_connection import KafkaConnection
from schemas.policy import MeterPolicy
from schemas.topics import TopicNames


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment.

    Fields:
        prefix: of topics, consumer groups and transactional ids (`TOPIC_PREFIX`).
        topics: their names, with the prefix.
        partitions: of the raw topic and its peers (`KAFKA_PARTITIONS`).
        policy: what the meter bills; also the deployment's name and the code of Lago's metric.
        customer_id_fields: where a call's customer id is looked for; the first one present wins.
        kept_tag_prefixes, kept_metadata: what is kept of a call's context.
    """

    kafka: KafkaConnection
    prefix: str
    topics: TopicNames
    partitions: int
    policy: MeterPolicy
    customer_id_fields: tuple[str, ...]
    kept_tag_prefixes: tuple[str, ...] = ()
    kept_metadata: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """First part of every transaction id that Lago sees (`DEPLOYMENT_NAME`)."""
        return self.policy.deployment

    def kafka_id(self, role: str) -> str:
        """Name of a consumer group, or a transactional id, of a role or an operation."""
        return f"{self.prefix}{self.name}-{role}"
