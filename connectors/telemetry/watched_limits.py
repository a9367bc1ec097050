"""Metrics about limits: running roles, waiting records in Kafka, size of the spool, certificates, the audit log."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from connectors.telemetry.metric_definitions import counter, gauge

#: The possible roles of a process: the parts of `meterbridge serve`, the roles of `meterbridge worker`, and
#: `meterbridge canary`.
ROLES: Final = ("webhooks", "api", "meter", "sink", "retry", "project", "canary")
WEBHOOK_ATTEMPTS: Final = ("sent", "failed", "given_up", "error")
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


class WatchedLimits:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    role = gauge("meterbridge_role", "1: this process has the role.", role=ROLES)
    spool_limit = gauge("meterbridge_spool_max_bytes", "SPOOL_MAX_BYTES of this process; 0: it has no spool.")
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
    certificate = gauge(
        "meterbridge_certificate_expires_seconds",
        "Seconds until the certificate ends that a setting names; negative: it has ended; 0: its file cannot be read.",
        setting=(),
    )
    audit_broken = gauge(
        "meterbridge_audit_chain_broken",
        "1: the chain of hashes does not hold in the last 10 000 lines of the audit log (api).",
    )

    webhooks_sent = counter(
        "meterbridge_outgoing_webhooks_total",
        "Attempts to send an outgoing webhook, by outcome; error: an error of ours (project).",
        outcome=WEBHOOK_ATTEMPTS,
    )
    webhooks_waiting = gauge(
        "meterbridge_outgoing_webhooks_waiting", "Outgoing webhooks that wait to be sent or sent again (project)."
    )
    webhooks_disabled = gauge(
        "meterbridge_outgoing_webhook_endpoints_disabled",
        "Endpoints that get no outgoing webhook any more, because they took none for five days or are gone (project).",
    )

    def has_roles(self, *roles: str) -> None:
        """Export the roles of this process; `roles` are members of `ROLES`."""
        for name in roles:
            self.role.labels(name).set(1)

    def waits(self, by_topic: Mapping[str, Waiting]) -> None:
        """Export the waiting records, by the names of `QUEUES`."""
        for topic, waiting in by_topic.items():
            self.waiting_records.labels(topic).set(waiting.records)
            self.waiting_age.labels(topic).set(waiting.oldest_s)
            share = waiting.oldest_s / waiting.retention_s if waiting.retention_s else 0.0
            self.waiting_share.labels(topic).set(share)

    def watch_certificate(self, setting: str, expires_s: Callable[[], float]) -> None:
        """Export when the certificate of a setting ends; each scrape calls `expires_s`, in any thread."""
        self.certificate.labels(setting).set_function(expires_s)
