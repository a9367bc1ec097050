"""The metrics of the ingress and its spool."""

from collections.abc import Callable
from typing import Final

from connectors.telemetry.metric_definitions import counter, gauge, histogram
from schemas.reasons import CONNECTION_CAUSES, INGRESS_REASONS, INGRESS_RULE_REASONS

SOURCES: Final = ("litellm", "integration", "lago", "openmeter")
WEBHOOK_STATUSES: Final = (202, 400, 401, 403, 408, 413, 415, 499, 500, 503)
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class IngressMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    webhook_requests = counter(
        "webhook_requests_total",
        "Webhook requests by source and HTTP status; 499: the sender closed the connection.",
        source=SOURCES,
        status=WEBHOOK_STATUSES,
    )
    elements = counter(
        "meterbridge_ingress_elements_total",
        "Elements of webhook bodies.",
        outcome=("accepted", "ignored", *INGRESS_REASONS, *INGRESS_RULE_REASONS),
    )
    left_out = counter(
        "meterbridge_ingress_left_out_total",
        "Accepted elements with a field that cannot be read, is probably misspelt or empty, or has an impossible time.",
    )
    request_seconds = histogram(
        "meterbridge_ingress_request_duration_seconds",
        "Seconds from the head of a webhook request to its response.",
        REQUEST_BUCKETS,
    )
    body_bytes = gauge("meterbridge_ingress_body_bytes_inflight", "Bytes of bodies that are not answered yet.")
    wrong_credentials = counter(
        "meterbridge_wrong_credentials_total", "Requests with no credential or an unknown one: answered 401."
    )
    connections_closed = counter(
        "meterbridge_connections_closed_total",
        "Connections that this process closed: idle for WEBHOOK_TIMEOUT, not reading for two to three times as long, or over the limit, in total or of one address.",
        cause=CONNECTION_CAUSES,
    )
    spool_records = gauge("meterbridge_spool_records", "Records that wait on disk for Kafka.")
    spool_bytes = gauge("meterbridge_spool_bytes", "Bytes of the records that wait on disk for Kafka.")
    spool_limit = gauge("meterbridge_spool_max_bytes", "SPOOL_MAX_BYTES of this process; 0: it has no spool.")
    spool_age = gauge(
        "meterbridge_spool_oldest_seconds", "Seconds since the oldest record on disk was received; 0: there is none."
    )
    spooled = counter("meterbridge_spooled_total", "Records put on disk because Kafka did not accept them.")
    drained = counter("meterbridge_spool_drained_total", "Records that were sent from the disk to Kafka.")
    restamped = counter(
        "meterbridge_records_restamped_total",
        "Records stored with another time than their own, which was ahead of the clock or refused by Kafka.",
    )

    def connection_closed(self, cause: str) -> None:
        """Count a connection that this process closed; `cause` is one of `CONNECTION_CAUSES`."""
        self.connections_closed.labels(cause).inc()

    def watch_spool(
        self, records: Callable[[], float], size: Callable[[], float], oldest_s: Callable[[], float]
    ) -> None:
        """Export the size of the spool and the age of its oldest record; each scrape calls these, in any thread."""
        self.spool_records.set_function(records)
        self.spool_bytes.set_function(size)
        self.spool_age.set_function(oldest_s)
