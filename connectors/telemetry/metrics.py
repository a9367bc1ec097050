"""All Prometheus metrics, with their types and meanings, and the sensors of the ingress.

Every process exports all metrics; metrics of other roles stay zero. No label contains a customer's id. Floats are for
dashboards only: the ledgers count in Decimal (streams/core/metering/ledger_state.py).
"""

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Final

from prometheus_client import CollectorRegistry, Info

from connectors.telemetry.background_tasks import watch_background_tasks
from connectors.telemetry.canary_metrics import CanaryMetrics
from connectors.telemetry.held_usage import HeldUsageMonitor
from connectors.telemetry.metric_definitions import counter, gauge, histogram, make_all
from connectors.telemetry.organization_metrics import BREAKER_STATES, OrganizationMetrics
from connectors.telemetry.unbilled_usage import DOUBTS, UnbilledUsageMonitor
from connectors.telemetry.unreadable_records import watch_unreadable
from connectors.telemetry.watched_limits import WatchedLimits
from schemas.reasons import (
    API_POOLS,
    CONNECTION_CAUSES,
    DOUBLED,
    IDENTITY_OUTCOMES,
    INGRESS_REASONS,
    POSTGRES_FAILURES,
    REFUSALS,
    SKIPPED,
    STRIPE_OUTCOMES,
    UNDEBITED,
    WEBHOOK_OUTCOMES,
)
from schemas.tables import TABLES
from streams.core.delivery.circuit_breaker import State
from streams.core.delivery.receipt_states import STATUSES
from streams.core.mapping.billing_periods import ENDED, NO_CHARGE
from streams.core.mapping.organizations import UNKNOWN_ORGANIZATION
from streams.core.mapping.resolve import LATE_PERIOD, OUTSIDE_PERIOD, UNKNOWN_RATE, WRONG_CURRENCY
from streams.core.mapping.subscription_choice import (
    AMBIGUOUS,
    FOREIGN_SUBSCRIPTION,
    NO_SUBSCRIPTION,
    UNKNOWN_SUBSCRIPTION,
)
from streams.core.mapping.versions import INACTIVE, NO_MAPPING, NOT_KEPT, WRONG_KIND
from streams.core.metering.decisions import DECISIONS
from streams.core.metering.duplicate_routes import ROUTES
from streams.core.metering.provider_health import STATUSES as PROVIDER_STATUSES

SOURCES: Final = ("litellm", "integration", "lago", "openmeter")
WEBHOOK_KINDS: Final = ("subscription", "customer", "invoice", "wallet", "events", "other")
#: Statuses of Lago that are exported as zero from the start; 0: no answer.
LAGO_STATUSES: Final = (0, 200, 401, 403, 404, 422, 429, 500, 502, 503, 504)
WEBHOOK_STATUSES: Final = (202, 400, 401, 403, 408, 413, 415, 499, 500, 503)
HELD_REASONS: Final = (
    *(NO_MAPPING, INACTIVE, NO_SUBSCRIPTION, WRONG_KIND, WRONG_CURRENCY, OUTSIDE_PERIOD, LATE_PERIOD, ENDED),
    *(NOT_KEPT, NO_CHARGE, AMBIGUOUS, UNKNOWN_SUBSCRIPTION, FOREIGN_SUBSCRIPTION, UNKNOWN_RATE, UNKNOWN_ORGANIZATION),
)
LAWS: Final = ("received", "folded")
PROVIDER_KEY_STATES: Final = ("active", "due", "old_secret", "unknown_secret")

#: A scan of all windows takes milliseconds, so it runs at most this often, in seconds.
LOOK_EVERY_S = 5.0

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LAGO_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics(WatchedLimits, OrganizationMetrics, CanaryMetrics):
    """The metrics of one process. The class lists the definitions; an instance has the metrics, in its registry."""

    webhook_requests = counter(
        "webhook_requests_total",
        "Webhook requests by source and HTTP status; 499: the sender closed the connection.",
        source=SOURCES,
        status=WEBHOOK_STATUSES,
    )
    event_processing = histogram(
        "event_processing_duration_seconds",
        "Seconds from the fetch of a batch of calls to its committed transaction.",
        _REQUEST_BUCKETS,
    )
    lago_requests = counter(
        "lago_api_requests_total",
        "Requests to Lago by HTTP method and status; 0: no answer.",
        method=("GET", "POST"),
        status=LAGO_STATUSES,
    )
    failed_events = counter(
        "failed_events_total",
        "Rejected elements and calls, and Lago events that became dead letters, by reason.",
        error_type=INGRESS_REASONS,
    )
    active_customers = gauge(
        "active_customers_total", "Customers whose mapping in force is active, without the canary (api)."
    )
    pending_events = gauge(
        "pending_events_total", "Lago events neither completed nor failed, without held usage (api)."
    )
    calls = counter("meterbridge_calls_total", "Calls by the meter's decision.", decision=DECISIONS)
    elements = counter(
        "meterbridge_ingress_elements_total",
        "Elements of webhook bodies.",
        outcome=("accepted", "ignored", *INGRESS_REASONS, *REFUSALS),
    )
    request_seconds = histogram(
        "meterbridge_ingress_request_duration_seconds",
        "Seconds from the head of a webhook request to its response.",
        _REQUEST_BUCKETS,
    )
    body_bytes = gauge("meterbridge_ingress_body_bytes_inflight", "Bytes of bodies that are not answered yet.")
    wrong_credentials = counter(
        "meterbridge_wrong_credentials_total", "Requests with no credential or an unknown one: answered 401."
    )
    connections_closed = counter(
        "meterbridge_connections_closed_total",
        "Connections that this process closed: idle for WEBHOOK_TIMEOUT, or over the limit, in total or of one address.",
        cause=CONNECTION_CAUSES,
    )
    spool_records = gauge("meterbridge_spool_records", "Records that wait on disk for Kafka.")
    spool_bytes = gauge("meterbridge_spool_bytes", "Bytes of the records that wait on disk for Kafka.")
    spool_age = gauge(
        "meterbridge_spool_oldest_seconds", "Seconds since the oldest record on disk was received; 0: there is none."
    )
    spooled = counter("meterbridge_spooled_total", "Records put on disk because Kafka did not accept them.")
    restamped = counter(
        "meterbridge_records_restamped_total",
        "Records stored with another time than their own, which was ahead of the clock or refused by Kafka.",
    )
    drained = counter("meterbridge_spool_drained_total", "Records that were sent from the disk to Kafka.")
    conservation = gauge(
        "meterbridge_ledger_imbalance",
        "By how much the sums of the ledgers do not agree: must be zero.",
        law=LAWS,
        unit=("calls", "usd"),
    )
    open_windows = gauge("meterbridge_open_windows", "Windows that accept calls and will be sealed.")
    held_windows = gauge("meterbridge_held_windows", "Windows that wait for a mapping or a subscription.")
    held_on_disk = gauge("meterbridge_held_windows_on_disk", "Held windows on disk, beyond HELD_IN_MEMORY.")
    held_straddled = counter(
        "meterbridge_held_straddled_total",
        "Held windows billed as a whole, by their last call, although a change of the mapping or period lies in them.",
    )
    newly_held = counter("meterbridge_newly_held_customers_total", "Customers whose usage began to be held.")
    held_customers = gauge("meterbridge_held_customers", "Customers with held usage.")
    held_age = gauge("meterbridge_held_oldest_seconds", "Seconds since the end of the oldest held call; 0: none.")
    ledger_held_customers = gauge(
        "meterbridge_ledger_held_customers", "Customers with held usage in a partition's ledger.", partition=()
    )
    ledger_held_windows = gauge(
        "meterbridge_ledger_held_windows", "Held windows in a partition's ledger.", partition=()
    )
    held_over_bound = gauge(
        "meterbridge_held_over_bound", "1: the ledger holds more windows than HELD_IN_MEMORY.", partition=()
    )
    held_calls = gauge("meterbridge_held_calls", "Calls in held windows.", reason=HELD_REASONS)
    held_cost = gauge("meterbridge_held_cost_usd", "Dollars in held windows.", reason=HELD_REASONS)
    events_emitted = counter("meterbridge_events_emitted_total", "Lago events that the meter wrote.")
    shifted_events = counter(
        "meterbridge_shifted_events_total",
        "Events billed in a later billing period than their usage, shifted when they were sealed or posted.",
        when=("seal", "post"),
    )
    ledgers_open = gauge("meterbridge_ledgers_open", "Partitions whose ledger is open in this process.")
    dedupe_identities = gauge("meterbridge_dedupe_identities", "Identities of calls remembered for deduplication.")
    partition_halted = gauge(
        "meterbridge_partition_halted",
        "1: the partition stands still. It is tried again every minute, and mostly an operator must remove the cause first.",
        topic=(),
        partition=(),
        reason=(),
    )
    fetch_gaps = counter(
        "meterbridge_fetch_gaps_total",
        "Fetched batches that did not follow the one before, and were fetched again.",
        topic=(),
    )
    table_staleness = gauge(
        "meterbridge_table_staleness_seconds", "Seconds since a table was last known to be complete.", table=()
    )
    breaker = gauge("meterbridge_lago_breaker_state", "Circuit breaker of Lago: 0 closed, 1 half open, 2 open.")
    resend_is_safe = gauge(
        "meterbridge_lago_idempotent",
        "1: Lago bills an event that is sent twice once; 0: an event in doubt is looked up first (sink, retry).",
    )
    lago_too_old = gauge("meterbridge_lago_too_old", "1: Lago is older than v1.39.0 (sink, retry).")
    lago_limit = gauge(
        "meterbridge_lago_rate_limit", "Requests per window by Lago's last rate limit headers; 0: it sent none."
    )
    lago_seconds = histogram(
        "meterbridge_lago_request_duration_seconds", "Seconds of a request to Lago.", _LAGO_BUCKETS, request=()
    )
    receipts = counter("meterbridge_event_transitions_total", "Receipts written, by status.", status=STATUSES)
    projected_rows = counter("meterbridge_projected_rows_total", "Rows written to Postgres, by table.", table=TABLES)
    projection_skipped = counter(
        "meterbridge_projection_skipped_total",
        "Records that became no row: unreadable, a call that has a row already, or a row that Postgres refuses.",
        reason=SKIPPED,
    )
    projector_lag = gauge(
        "meterbridge_projector_lag_seconds",
        "Age of the oldest fetched record that is not in Postgres yet; 0: there is none.",
        topic=(),
    )
    postgres_failures = counter(
        "meterbridge_postgres_failures_total",
        "Failed attempts to write to Postgres, by reason.",
        reason=POSTGRES_FAILURES,
    )
    two_routes = counter(
        "meterbridge_two_routes_total",
        "Customers whose usage came by two callbacks within an hour, so that calls may be billed twice (meter).",
        route=(),
        other=(),
    )
    doubled_calls = counter(
        "meterbridge_doubled_calls_total",
        "Billed calls that look like one: bridge: one request with two ids; job: one job of two customers; "
        "copy: one call that was counted twice (project).",
        kind=DOUBLED,
    )
    late_calls = counter(
        "meterbridge_late_calls_total",
        "Calls older than the dedupe retention: requeued, known, or waiting because the log cannot tell; failed: looks that Postgres refused (project).",
        outcome=("requeued", "known", "waiting", "failed"),
    )
    rebilled_events = counter(
        "meterbridge_rebilled_events_total",
        "Events posted after their subscription's end and billed again; given_up after 40 days; failed: looks that Postgres refused (project).",
        outcome=("rebilled", "given_up", "failed"),
    )
    after_end_events = gauge(
        "meterbridge_after_end_events",
        "Events posted after their subscription's end that no invoice of the org counts yet (project).",
    )
    after_end_usd = gauge("meterbridge_after_end_usd", "Dollars of these events (project).")
    credit_overdraft = gauge(
        "meterbridge_credits_overdraft_usd", "Dollars that prepaid accounts have used beyond their balance (project)."
    )
    credits_undebited = counter(
        "meterbridge_credits_undebited_calls_total",
        "Calls that name a prepaid account which is not debited for them: client_chose_user: only the client names the user; "
        "others_reservation: the reservation with the call's id is another account's (project).",
        reason=UNDEBITED,
    )
    credit_reservations = gauge(
        "meterbridge_credit_reservations_open",
        "Reservations of credits that are neither settled nor released (project).",
    )
    credit_imbalance = gauge(
        "meterbridge_credits_imbalance_usd",
        "Dollars by which balances differ from their grants, and ledger transactions from zero; always 0 (project).",
    )
    credit_upkeep_failures = counter(
        "meterbridge_credit_upkeep_failures_total",
        "Rounds in which expired credits and reservations were not ended: Postgres lacks a table or a right (project).",
    )
    lago_webhooks = counter(
        "meterbridge_lago_webhooks_total",
        "Webhooks of Lago by kind and result; or the reason why Lago must send them again (api).",
        kind=WEBHOOK_KINDS,
        outcome=WEBHOOK_OUTCOMES,
    )
    doubtful_calls = counter(
        "meterbridge_doubtful_calls_total", "Calls with a doubtful cost, by reason.", reason=DOUBTS
    )
    doubtful_cost = counter(
        "meterbridge_doubtful_cost_usd_total", "Dollars of calls with a doubtful cost.", reason=DOUBTS
    )
    unknown_types = counter(
        "meterbridge_unknown_call_type_calls_total",
        "Calls of a type that this release does not know; they count as inference.",
    )
    provider_keys = gauge(
        "meterbridge_provider_keys",
        "Users' active keys of LLM providers: all; due to be replaced; under an older secret, or one that is not set (api).",
        state=PROVIDER_KEY_STATES,
    )
    provider_keys_resolved = counter(
        "meterbridge_provider_keys_resolved_total",
        "Requests for a user's provider key in the clear; unreadable: it could not be decrypted (api).",
        outcome=("resolved", "none", "unreadable"),
    )
    providers = gauge(
        "meterbridge_providers",
        "Pairs of provider and model by how well they answer, over the last ten minutes (project).",
        status=PROVIDER_STATUSES,
    )
    usage_days_failed = gauge(
        "meterbridge_usage_days_failed",
        "Days whose sums of analytics could not be made; they are tried again (project).",
    )
    identities_asked = counter(
        "meterbridge_identities_asked_total",
        "Unmapped customers that Lago was asked about (meter).",
        outcome=IDENTITY_OUTCOMES,
    )

    stripe_events = counter(
        "meterbridge_stripe_events_total",
        "Events of Stripe's webhook by result, or by the reason why a payment gave no credits (api).",
        outcome=STRIPE_OUTCOMES,
    )
    trace_spans = counter(
        "meterbridge_trace_spans_total",
        "Spans of traces by what became of them; dropped: too many were waiting for the receiver.",
        outcome=("exported", "failed", "dropped"),
    )
    api_postgres_refused = counter(
        "meterbridge_api_postgres_refused_total",
        "Requests that found no free connection to Postgres, or no turn of their account, in 2 s, by pool (api).",
        pool=API_POOLS,
    )

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        self.registry = registry
        make_all(self, registry)
        for pair in combinations(ROUTES, 2):
            self.two_routes.labels(*pair)
        self.held_watch = HeldUsageMonitor(self)
        self.unbilled_watch = UnbilledUsageMonitor(self)
        watch_unreadable(registry)
        watch_background_tasks(registry)
        Info("meterbridge_build", "The running version.", registry=registry).info({"version": version})

    def lago_response_seen(self, kind: str, outcome: str) -> None:
        """Count a webhook of Lago; `outcome` is its result, or the reason of its refusal."""
        word = kind.partition(".")[0]
        self.lago_webhooks.labels(word if word in WEBHOOK_KINDS else "other", outcome).inc()

    def not_billed(self, reason: str, events: int) -> None:
        """Count events that Lago accepted first and later reported as not billed."""
        self.failed_events.labels(reason).inc(events)

    def watch_table(self, table: str, lag_s: Callable[[], float]) -> None:
        """Export a table's staleness in seconds; each scrape calls `lag_s`, in any thread."""
        self.table_staleness.labels(table).set_function(lag_s)

    def watch_projector(self, topic: str, lag_s: Callable[[], float]) -> None:
        """Export the lag of a topic's projection in seconds; each scrape calls `lag_s`, in any thread."""
        self.projector_lag.labels(topic).set_function(lag_s)

    def watch_breaker(self, state: Callable[[], State]) -> None:
        """Export the state of the circuit breaker; each scrape calls `state`, in any thread."""
        self.breaker.set_function(lambda: BREAKER_STATES[state()])

    def watch_spool(
        self, records: Callable[[], float], size: Callable[[], float], oldest_s: Callable[[], float]
    ) -> None:
        """Export the size of the spool and the age of its oldest record; each scrape calls these, in any thread."""
        self.spool_records.set_function(records)
        self.spool_bytes.set_function(size)
        self.spool_age.set_function(oldest_s)

    def watch_lago(
        self, resend_is_safe: Callable[[], bool], too_old: Callable[[], bool], limit: Callable[[], float]
    ) -> None:
        """Export the properties and the rate limit of this Lago; each scrape calls these, in any thread."""
        self.resend_is_safe.set_function(resend_is_safe)
        self.lago_too_old.set_function(too_old)
        self.lago_limit.set_function(limit)

    def connection_closed(self, cause: str) -> None:
        """Count a connection that this process closed; `cause` is one of `CONNECTION_CAUSES`."""
        self.connections_closed.labels(cause).inc()

    def spans(self, outcome: str, count: int) -> None:
        """Count spans that were exported, or are lost; called in any thread."""
        self.trace_spans.labels(outcome).inc(count)

    def lago_requested(self, request: str, status: int, seconds: float) -> None:
        """Count a request to Lago: the `on_request` of LagoClient. The hook of the delivery reports the same posts, so
        a process uses one of the two.
        """
        self.lago_requests.labels("POST" if request.startswith("post") else "GET", status).inc()
        self.lago_seconds.labels(request).observe(seconds)


class IngressSensors:
    """`on_request` and `on_elements` of the ingress. They cache the labelled metrics, because a lookup per request is slow."""

    def __init__(self, metrics: Metrics) -> None:
        self._request = cache(metrics.webhook_requests.labels)
        self._outcome = cache(metrics.elements.labels)
        self._failed = metrics.failed_events

    def requested(self, source: str, status: int) -> None:
        """Count an answered request."""
        self._request(source, status).inc()

    def elements(self, outcome: str, count: int) -> None:
        """Count elements; `outcome` is `accepted`, `ignored` or the reason of a rejection."""
        self._outcome(outcome).inc(count)
        if outcome not in ("accepted", "ignored"):
            self._failed.labels(outcome).inc(count)
