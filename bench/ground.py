"""The topics of one bench run on a real Kafka, their records, and settings for the programs that read them."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from bench.records import CUSTOMERS, customer
from connectors.config.connections import kafka_connection, topic_layout
from connectors.config.settings import Settings, load_settings
from connectors.kafka.admin import create_topics
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import Record
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.topics import TopicNames

PARTITIONS = 4
_CUSTOMERS_OF_AN_ORG = 5
_ENQUEUED = 50_000
_ANSWER_S = 60


def settings_of(bootstrap: str, prefix: str, **other: str) -> Settings:
    """Settings of a worker or a server: the defaults, except that no window is sealed during a run."""
    return load_settings(
        {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "KAFKA_PARTITIONS": str(PARTITIONS),
            "TOPIC_PREFIX": prefix,
            "GRACE_SECONDS": "3600",
            **other,
        }
    )


@dataclass(frozen=True, slots=True)
class Ground:
    """The topics of one run on a broker; `clear()` deletes them."""

    bootstrap: str
    name: str = field(default_factory=lambda: f"bench-{uuid.uuid4().hex[:8]}.")

    def corner(self) -> str:
        """Create a new set of all topics; its prefix."""
        prefix = f"{self.name}{uuid.uuid4().hex[:8]}."
        settings = settings_of(self.bootstrap, prefix)
        create_topics(kafka_connection(settings), topic_layout(settings))
        return prefix

    def fill(self, records: Iterable[Record]) -> None:
        """Write records as the ingress would; return when they are durable."""
        producer = Producer(producer_config(self.bootstrap, answer_within_s=_ANSWER_S))
        for number, (topic, key, value, time_ms) in enumerate(records):
            producer.produce(topic, value, key, timestamp=time_ms)
            if number % _ENQUEUED == 0:
                producer.flush(_ANSWER_S)
        if producer.flush(_ANSWER_S):
            raise RuntimeError("Kafka did not take all records in time")

    def map_customers(self, prefix: str) -> None:
        """Map every customer to an org with a running subscription."""
        topics, records = TopicNames.with_prefix(prefix), list[Record]()
        for number in range(CUSTOMERS):
            org = f"org-{number // _CUSTOMERS_OF_AN_ORG}"
            who = customer(number)
            mapped = CustomerRecord(who, (MappingVersion(0, org, "tenant"),), 0, 0)
            owner = OrgRecord(org, periods=(Period(f"subscription-of-{org}", 0),))
            records.append((topics.orgs, org, msgspec.json.encode(owner), 0))
            records.append((topics.customers, who, msgspec.json.encode(mapped), 0))
        self.fill(records)

    def clear(self) -> None:
        """Delete the topics of the run, those of the peers included."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        mine = [name for name in admin.list_topics(timeout=_ANSWER_S).topics if self.name in name]
        for deleted in (admin.delete_topics(mine) if mine else {}).values():
            deleted.result()
