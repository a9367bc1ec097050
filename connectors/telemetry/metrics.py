"""Every Prometheus metric there is, with its type and meaning, and the ingress's sensors.

One `Metrics` a process, in a registry that is handed in. Every process exports all of them; what a role
does not do stays zero there. Where labels are a closed set their children begin at zero, because
`increase()` misses the first sample of a new series. No label ever holds a customer's id. Floats are for
dashboards: the books themselves are Decimal (streams/core/metering/ledger_state.py).
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from connectors.telemetry.held_usage import HeldUsageMonitor
from connectors.telemetry.unbilled_usage import UnbilledUsageMonitor
from connectors.telemetry.unreadable_records import watch_unreadable
from schemas.reasons import (
    CONNECTION_CAUSES,
    DOUBLED,
    IDENTITY_OUTCOMES,
    INGRESS_REASONS,
    POSTGRES_FAILURES,
    SKIPPED,
    WEBHOOK_OUTCOMES,
)
from schemas.tables import TABLES
from streams.core.delivery.circuit_breaker import State
from streams.core.delivery.event_states import STATUSES
from streams.core.mapping.billing_periods import ENDED, NO_CHARGE
from streams.core.mapping.resolve import LATE_PERIOD, OUTSIDE_PERIOD, WRONG_CURRENCY
from streams.core.mapping.subscription_choice import (
    AMBIGUOUS,
    FOREIGN_SUBSCRIPTION,
    NO_SUBSCRIPTION,
    UNKNOWN_SUBSCRIPTION,
)
from streams.core.mapping.versions import INACTIVE, NO_MAPPING, NOT_KEPT, WRONG_KIND
from streams.core.metering.decisions import DECISIONS

SOURCES: Final = ("litellm", "integration", "lago", "openmeter")
WEBHOOK_KINDS: Final = ("subscription", "customer", "invoice", "wallet", "events", "other")
WEBHOOK_STATUSES: Final = (202, 400, 401, 403, 408, 413, 415, 499, 500, 503)
HELD_REASONS: Final = (
    *(NO_MAPPING, INACTIVE, NO_SUBSCRIPTION, WRONG_KIND, WRONG_CURRENCY, OUTSIDE_PERIOD, LATE_PERIOD, ENDED),
    *(NOT_KEPT, NO_CHARGE, AMBIGUOUS, UNKNOWN_SUBSCRIPTION, FOREIGN_SUBSCRIPTION),
)
LAWS: Final = ("received", "folded")
BREAKER_STATES: Final = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}

#: A pass over all windows costs milliseconds, so it is made no more often.
LOOK_EVERY_S = 5.0

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LAGO_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one process."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        self.registry = registry

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, registry=registry)

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(name, meaning, labels, registry=registry)

        def histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, meaning, labels, buckets=buckets, registry=registry)

        self.webhook_requests = counter(
            "webhook_requests_total",
            "Webhook requests by source and HTTP status; 499: the sender left.",
            "source",
            "status",
        )
        self.event_processing = histogram(
            "event_processing_duration_seconds",
            "Seconds from taking a chunk of calls to its committed transaction.",
            _REQUEST_BUCKETS,
        )
        self.lago_requests = counter(
            "lago_api_requests_total",
            "Requests to Lago by HTTP method and status; 0: no answer came.",
            "method",
            "status",
        )
        self.failed_events = counter(
            "failed_events_total",
            "Elements and calls that were rejected and Lago events that became dead letters, by reason.",
            "error_type",
        )
        self.active_customers = gauge("active_customers_total", "Customers whose mapping in force is active (api).")
        self.pending_events = gauge(
            "pending_events_total", "Lago events neither completed nor failed, without held usage (api)."
        )

        self.calls = counter("meterbridge_calls_total", "Calls by the meter's decision.", "decision")
        self.elements = counter("meterbridge_ingress_elements_total", "Elements of webhook bodies.", "outcome")
        self.request_seconds = histogram(
            "meterbridge_ingress_request_duration_seconds",
            "Seconds from a webhook request's head to its answer.",
            _REQUEST_BUCKETS,
        )
        self.body_bytes = gauge("meterbridge_ingress_body_bytes_inflight", "Bytes of bodies that are not answered yet.")
        self.wrong_credentials = counter(
            "meterbridge_wrong_credentials_total",
            "Requests that named no credential, or none that is known: answered 401.",
        )
        self.connections_closed = counter(
            "meterbridge_connections_closed_total",
            "Connections closed by us: silent for WEBHOOK_TIMEOUT, or no place left, in all or for one address.",
            "cause",
        )
        self.spool_records = gauge("meterbridge_spool_records", "Records that wait on disk for Kafka.")
        self.spool_bytes = gauge("meterbridge_spool_bytes", "Bytes of the records that wait on disk for Kafka.")
        self.spool_age = gauge(
            "meterbridge_spool_oldest_seconds",
            "Seconds since the oldest record on disk was received; 0: there is none.",
        )
        self.spooled = counter("meterbridge_spooled_total", "Records put on disk because Kafka did not take them.")
        self.restamped = counter(
            "meterbridge_records_restamped_total",
            "Records stored under another time than theirs, which was ahead of the clock or refused by Kafka.",
        )
        self.drained = counter("meterbridge_spool_drained_total", "Records that went from the disk to Kafka.")
        self.conservation = gauge(
            "meterbridge_ledger_imbalance", "What the books are off by: must read zero.", "law", "unit"
        )
        self.open_windows = gauge("meterbridge_open_windows", "Windows that take calls and will be sealed.")
        self.held_watch = HeldUsageMonitor(registry)
        self.unbilled_watch = UnbilledUsageMonitor(registry)
        watch_unreadable(registry)
        self.held_windows = gauge("meterbridge_held_windows", "Windows that wait for a mapping or a subscription.")
        self.held_on_disk = gauge("meterbridge_held_windows_on_disk", "Of these, those on disk, beyond HELD_IN_MEMORY.")
        self.held_straddled = counter(
            "meterbridge_held_straddled_total",
            "Held windows that were billed whole, by their last call, though a border that was learnt later lies in them.",
        )
        self.held_calls = gauge("meterbridge_held_calls", "Calls in held windows.", "reason")
        self.held_cost = gauge("meterbridge_held_cost_usd", "Dollars in held windows.", "reason")
        self.events_emitted = counter("meterbridge_events_emitted_total", "Lago events that left the meter.")
        self.shifted_events = counter(
            "meterbridge_shifted_events_total",
            "Events billed in a later billing period than their usage, moved when they were sealed or posted.",
            "when",
        )
        self.ledgers_open = gauge("meterbridge_ledgers_open", "Partitions whose ledger is open here.")
        self.dedupe_identities = gauge("meterbridge_dedupe_identities", "Calls remembered against repeats.")
        self.partition_halted = gauge(
            "meterbridge_partition_halted",
            "1: this partition stands still until somebody acts.",
            "topic",
            "partition",
            "reason",
        )
        self.fetch_gaps = counter(
            "meterbridge_fetch_gaps_total",
            "Chunks that did not follow the one before and were asked for again.",
            "topic",
        )
        self.follower_lag = gauge(
            "meterbridge_table_staleness_seconds", "Seconds since a table was last known to be complete.", "table"
        )
        self.breaker = gauge("meterbridge_lago_breaker_state", "Breaker before Lago: 0 closed, 1 half open, 2 open.")
        self.resend_is_safe = gauge(
            "meterbridge_lago_idempotent",
            "1: Lago bills an event that is sent twice once; 0: an event of unknown fate is looked up first (sink, retry).",
        )
        self.lago_too_old = gauge("meterbridge_lago_too_old", "1: Lago is older than v1.39.0 (sink, retry).")
        self.lago_limit = gauge(
            "meterbridge_lago_rate_limit", "Requests in a window that Lago announced last; 0: it announces none."
        )
        self.lago_seconds = histogram(
            "meterbridge_lago_request_duration_seconds", "Seconds of a request to Lago.", _LAGO_BUCKETS, "request"
        )
        self.receipts = counter("meterbridge_event_transitions_total", "Receipts written, by status.", "status")
        self.projected_rows = counter(
            "meterbridge_projected_rows_total", "Rows written to Postgres, by table.", "table"
        )
        self.projection_skipped = counter(
            "meterbridge_projection_skipped_total",
            "Records that became no row: unreadable, a call that is in the log already, or a row that Postgres refuses.",
            "reason",
        )
        self.projector_lag = gauge(
            "meterbridge_projector_lag_seconds",
            "Age of the oldest record at hand that is not in Postgres yet; 0: none is.",
            "topic",
        )
        self.postgres_failures = counter(
            "meterbridge_postgres_failures_total", "Failed attempts to write to Postgres, by reason.", "reason"
        )
        self.two_routes = counter(
            "meterbridge_two_routes_total",
            "Customers whose usage came by two callbacks within an hour, so that calls may be billed twice (meter).",
            "route",
            "other",
        )
        self.doubled_calls = counter(
            "meterbridge_doubled_calls_total",
            "Billed calls that look like one: bridge: one request under two ids; job: one job of two customers; "
            "copy: one call that was counted twice (project).",
            "kind",
        )
        self.late_calls = counter(
            "meterbridge_late_calls_total",
            "Calls beyond the horizon: requeued, known, or waiting because the log cannot tell; failed: errors (project).",
            "outcome",
        )
        self.rebilled_events = counter(
            "meterbridge_rebilled_events_total",
            "Events that were posted after their subscription's end: billed again; given_up after 40 days; failed: errors (project).",
            "outcome",
        )
        self.after_end_events = gauge(
            "meterbridge_after_end_events",
            "Events posted after an end that no invoice of their org counts yet (project).",
        )
        self.after_end_usd = gauge("meterbridge_after_end_usd", "Dollars of these events (project).")
        self.lago_webhooks = counter(
            "meterbridge_lago_webhooks_total",
            "Webhooks of Lago's by kind and what became of them; else the reason why they are to be sent again (api).",
            "kind",
            "outcome",
        )
        self.identities_asked = counter(
            "meterbridge_identities_asked_total", "Unmapped names that Lago was asked about (meter).", "outcome"
        )
        Info("meterbridge_build", "The version that runs.", registry=registry).info({"version": version})
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        for source in SOURCES:
            for status in WEBHOOK_STATUSES:
                self.webhook_requests.labels(source, status)
        for law in LAWS:
            for unit in ("calls", "usd"):
                self.conservation.labels(law, unit)
        _children(self.elements, ("accepted", "ignored", *INGRESS_REASONS))
        _children(self.failed_events, INGRESS_REASONS)
        _children(self.connections_closed, CONNECTION_CAUSES)
        _children(self.calls, DECISIONS)
        _children(self.identities_asked, IDENTITY_OUTCOMES)
        _children(self.held_calls, HELD_REASONS)
        _children(self.held_cost, HELD_REASONS)
        _children(self.receipts, STATUSES)
        _children(self.projected_rows, TABLES)
        _children(self.projection_skipped, SKIPPED)
        _children(self.postgres_failures, POSTGRES_FAILURES)
        _children(self.doubled_calls, DOUBLED)
        _children(self.late_calls, ("requeued", "known", "waiting", "failed"))
        _children(self.rebilled_events, ("rebilled", "given_up", "failed"))
        for kind in WEBHOOK_KINDS:
            for outcome in WEBHOOK_OUTCOMES:
                self.lago_webhooks.labels(kind, outcome)

    def lago_told(self, kind: str, outcome: str) -> None:
        """A webhook of Lago's was answered."""
        word = kind.partition(".")[0]
        self.lago_webhooks.labels(word if word in WEBHOOK_KINDS else "other", outcome).inc()

    def not_billed(self, reason: str, events: int) -> None:
        """Lago told that it will not bill events that it took."""
        self.failed_events.labels(reason).inc(events)

    def watch_follower(self, table: str, lag_s: Callable[[], float]) -> None:
        """Export a table's age; `lag_s` is called by whoever scrapes, in any thread."""
        self.follower_lag.labels(table).set_function(lag_s)

    def watch_projector(self, topic: str, lag_s: Callable[[], float]) -> None:
        """Export how far behind a topic's projection is; called as `watch_follower`'s argument is."""
        self.projector_lag.labels(topic).set_function(lag_s)

    def watch_breaker(self, state: Callable[[], State]) -> None:
        """Export the breaker's state; called as `watch_follower`'s argument is."""
        self.breaker.set_function(lambda: BREAKER_STATES[state()])

    def watch_spool(
        self, records: Callable[[], float], size: Callable[[], float], oldest_s: Callable[[], float]
    ) -> None:
        """Export the spool's depth and age; called as `watch_follower`'s argument is."""
        self.spool_records.set_function(records)
        self.spool_bytes.set_function(size)
        self.spool_age.set_function(oldest_s)

    def watch_lago(
        self, resend_is_safe: Callable[[], bool], too_old: Callable[[], bool], limit: Callable[[], float]
    ) -> None:
        """Export what Lago is and allows; called as `watch_follower`'s argument is."""
        self.resend_is_safe.set_function(resend_is_safe)
        self.lago_too_old.set_function(too_old)
        self.lago_limit.set_function(limit)

    def connection_closed(self, cause: str) -> None:
        """A connection was closed by us; one of `CAUSES`."""
        self.connections_closed.labels(cause).inc()

    def lago_requested(self, request: str, status: int, seconds: float) -> None:
        """`on_request` of LagoClient. Delivery's hook of the same kind reports the same posts: hand in one of them."""
        self.lago_requests.labels("POST" if request.startswith("post") else "GET", status).inc()
        self.lago_seconds.labels(request).observe(seconds)


class IngressSensors:
    """`on_request` and `on_elements` of the ingress: children are looked up once, not once a request."""

    def __init__(self, metrics: Metrics) -> None:
        self._request = cache(metrics.webhook_requests.labels)
        self._outcome = cache(metrics.elements.labels)
        self._failed = metrics.failed_events

    def requested(self, source: str, status: int) -> None:
        """One webhook request was answered."""
        self._request(source, status).inc()

    def elements(self, outcome: str, count: int) -> None:
        """`accepted`, `ignored` or the reason of a rejection."""
        self._outcome(outcome).inc(count)
        if outcome not in ("accepted", "ignored"):
            self._failed.labels(outcome).inc(count)


def _children(metric: Counter | Gauge, values: Iterable[str]) -> None:
    for value in values:
        metric.labels(value)
