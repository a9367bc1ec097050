"""The topic catalogue: every topic, its partitions and its settings.

`meterbridge topics create|check` and the workers' start-up check read it. Partition counts change only with
`meterbridge topics expand`, because the state of a key must be on the same partition as its records (docs/adr/0042).
Settings have Kafka's names (https://kafka.apache.org/documentation/#topicconfigs).
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

DAY_MS: Final = 86_400_000
#: The retry topic has one partition for each length of wait, so that no event waits behind one with a longer wait.
RETRY_TIERS: Final = 8


class Partitions(Enum):
    """How many partitions a topic has, relative to `KAFKA_PARTITIONS`.

    `meterbridge topics expand` grows the topics that are `LIKE_RAW`. Those that are `AS_CREATED` keep their number: the
    order of two records with one key matters to their readers, and a grown topic would place the second elsewhere.
    """

    LIKE_RAW = "KAFKA_PARTITIONS"
    AS_CREATED = "KAFKA_PARTITIONS when the topic was created"
    RETRY_TIERS = "one a retry tier"
    ONE = "1"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the catalogue; `name` has no prefix yet."""

    name: str
    partitions: Partitions
    meaning: str
    config: dict[str, str] = field(default_factory=dict)


#: Kafka's own default, set explicitly, because a broker with a smaller value would refuse records that another accepts.
_PLAIN = {"max.message.bytes": str((1 << 20) + 12)}


def _kept(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * DAY_MS), "retention.bytes": "-1", **_PLAIN}


_COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.2",
    "delete.retention.ms": str(7 * DAY_MS),
    **_PLAIN,
}
#: A dead letter is larger than its event. Its topic must accept each dead letter whose event was accepted.
_LARGE = {"max.message.bytes": str(8 << 20)}
#: How far a record's time may be ahead of the broker's clock, milliseconds. A wrong time would move a ledger's clock.
TIME_AHEAD_MS: Final = 3_600_000
#: A record that waited in a spool for days keeps its time. The broker refuses a time ahead of its own; the ingress then
#: sends the record with another (ADR 0025).
_TIMED = {
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": str(TIME_AHEAD_MS),
    "message.timestamp.before.max.ms": str((1 << 63) - 1),
}
_RAW_CONFIG = {
    **_kept(30),
    "compression.type": "lz4",
    **_TIMED,
    **_LARGE,
}

RAW = Topic("litellm.usage.raw", Partitions.LIKE_RAW, "calls as received, prompts removed", _RAW_CONFIG)
REJECTED = Topic(
    "litellm.usage.rejected",
    Partitions.LIKE_RAW,
    "what can never be billed, with its reason",
    {**_kept(30), **_TIMED, **_LARGE},
)
CUSTOMERS = Topic("billing.customers", Partitions.AS_CREATED, "customer mappings: the table's changelog", _COMPACTED)
ORGS = Topic("billing.orgs", Partitions.ONE, "organisations and their subscription periods", _COMPACTED)
ENRICHED = Topic("litellm.usage.enriched", Partitions.LIKE_RAW, "one record a call, with its decision", _kept(14))
CHANGELOG = Topic("meter.changelog", Partitions.LIKE_RAW, "the ledgers' state", _COMPACTED)
EVENTS = Topic("billing.lago.events", Partitions.LIKE_RAW, "Lago events, as they will be posted", _kept(30))
RETRY = Topic(
    "billing.lago.retry", Partitions.RETRY_TIERS, "events waiting for another attempt", {**_kept(30), **_LARGE}
)
DLQ = Topic("billing.lago.dlq", Partitions.ONE, "dead letters, with reason and attempts", {**_kept(30), **_LARGE})
RECEIPTS = Topic("billing.receipts", Partitions.AS_CREATED, "state of every Lago event", _kept(30))
AUDIT = Topic("billing.audit", Partitions.ONE, "who did what to money's way, and why", _kept(400))
RATES = Topic("billing.rates", Partitions.ONE, "versions of the rate card", _COMPACTED)
DELIVERIES = Topic("billing.deliveries", Partitions.ONE, "every post to Lago and every webhook of Lago's", _kept(30))

CATALOGUE: Final = (
    *(RAW, REJECTED, CUSTOMERS, ORGS, ENRICHED, CHANGELOG, EVENTS, RETRY, DLQ, RECEIPTS, AUDIT),
    DELIVERIES,
    RATES,
)


def partition_count(topic: Topic, kafka_partitions: int) -> int:
    """Return the number of partitions with which `topic` is created, for a given `KAFKA_PARTITIONS`."""
    if topic.partitions in (Partitions.LIKE_RAW, Partitions.AS_CREATED):
        return kafka_partitions
    return RETRY_TIERS if topic.partitions is Partitions.RETRY_TIERS else 1


def has_right_count(topic: Topic, partitions: int, kafka_partitions: int) -> bool:
    """Return whether a topic with `partitions` partitions fits a given `KAFKA_PARTITIONS`.

    Counts grow by whole multiples only, so a topic that kept its count has a divisor of today's number.
    """
    if topic.partitions is Partitions.AS_CREATED:
        return kafka_partitions % partitions == 0
    return partitions == partition_count(topic, kafka_partitions)


def topic_config(topic: Topic, replication: int) -> dict[str, str]:
    """Return the topic settings for a replication factor. They set the durability explicitly, independent of the
    broker's defaults.
    """
    durable = {"min.insync.replicas": "2" if replication > 1 else "1"}
    if replication > 1:
        durable["unclean.leader.election.enable"] = "false"
    return {**topic.config, **durable}


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The names of the catalogue on the broker, with prefix."""

    raw: str
    rejected: str
    customers: str
    orgs: str
    enriched: str
    changelog: str
    events: str
    retry: str
    dlq: str
    receipts: str
    audit: str
    deliveries: str
    rates: str

    @property
    def projected(self) -> tuple[str, ...]:
        """The topics whose records become rows in Postgres."""
        about_calls = self.enriched, self.events, self.receipts, self.rejected
        return (*about_calls, self.customers, self.orgs, self.audit, self.deliveries)

    @classmethod
    def with_prefix(cls, prefix: str = "") -> "TopicNames":
        """Return every topic of the catalogue, in its order, with `TOPIC_PREFIX`."""
        return cls(*(prefix + topic.name for topic in CATALOGUE))
