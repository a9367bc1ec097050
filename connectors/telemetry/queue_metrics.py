"""The metrics of what waits in the topics."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from connectors.telemetry.metric_definitions import gauge

#: Topics whose records a role must read before Kafka deletes them.
QUEUES: Final = ("raw", "events", "retry")


class Waiting(NamedTuple):
    """The records of a topic that a role has not read yet.

    Fields:
        records: offsets behind the group's position; markers of transactions count too.
        oldest_s: age of the oldest unread record, seconds; 0 = none waits.
        retention_s: how long the topic keeps a record, seconds; 0 = it never deletes one.
    """

    records: int
    oldest_s: float
    retention_s: float


class QueueMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    waiting_records = gauge(
        "meterbridge_waiting_records", "Records of a topic that its role has not read yet (api).", topic=QUEUES
    )
    waiting_age = gauge(
        "meterbridge_waiting_oldest_seconds",
        "Age of the oldest of these records; 0: there is none (api).",
        topic=QUEUES,
    )
    waiting_share = gauge(
        "meterbridge_waiting_retention_ratio",
        "This age as a share of the topic's retention; at 1 Kafka deletes records that no role has processed (api).",
        topic=QUEUES,
    )

    def waits(self, by_topic: Mapping[str, Waiting]) -> None:
        """Export the waiting records, by the names of `QUEUES`."""
        for topic, waiting in by_topic.items():
            self.waiting_records.labels(topic).set(waiting.records)
            self.waiting_age.labels(topic).set(waiting.oldest_s)
            share = waiting.oldest_s / waiting.retention_s if waiting.retention_s else 0.0
            self.waiting_share.labels(topic).set(share)
