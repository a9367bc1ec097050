"""The data about the deployment that an operation needs, as one value (connectors/config/connections.py makes it)."""

from dataclasses import dataclass

from connectors.config.kafka_connection import KafkaConnection
from schemas.policy import MeterPolicy
from schemas.topics import TopicNames


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment.

    Fields:
        prefix: of topics, consumer groups and transactional ids (`TOPIC_PREFIX`).
        topics: their names, with the prefix.
        partitions: of the raw topic and the topics with the same number (`KAFKA_PARTITIONS`).
        policy: the billing rules of the meter, the name of the deployment, and the code of Lago's metric.
        customer_id_fields: the fields of a call in which its customer id is searched; the first one present is used.
        kept_tag_prefixes, kept_metadata: which context of a call is kept.
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
        """The first part of every transaction id that Lago gets (`DEPLOYMENT_NAME`)."""
        return self.policy.deployment

    def kafka_id(self, role: str) -> str:
        """Return the name of a consumer group, or a transactional id, of a role or an operation."""
        return f"{self.prefix}{self.name}-{role}"
