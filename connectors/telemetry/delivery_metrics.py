"""The metrics of delivery (sink and retry) and of Lago: events, requests, and Lago's webhooks."""

from collections.abc import Callable
from typing import Final

from connectors.telemetry.metric_definitions import counter, gauge, histogram
from schemas.reasons import INGRESS_REASONS, WEBHOOK_OUTCOMES
from streams.core.delivery.circuit_breaker import State
from streams.core.delivery.receipt_states import STATUSES

WEBHOOK_KINDS: Final = ("subscription", "customer", "invoice", "wallet", "events", "other")
#: Of Lago, as far as they are counted from zero on; 0: no answer.
LAGO_STATUSES: Final = (0, 200, 401, 403, 404, 422, 429, 500, 502, 503, 504)
_LAGO_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BREAKER_STATES: Final = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


class DeliveryMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    events_emitted = counter("meterbridge_events_emitted_total", "Lago events that the meter wrote.")
    receipts = counter("meterbridge_event_transitions_total", "Receipts written, by status.", status=STATUSES)
    pending_events = gauge(
        "pending_events_total", "Lago events neither completed nor failed, without held usage (api)."
    )
    failed_events = counter(
        "failed_events_total",
        "Rejected elements and calls, and Lago events that became dead letters, by reason.",
        error_type=INGRESS_REASONS,
    )
    lago_requests = counter(
        "lago_api_requests_total",
        "Requests to Lago by HTTP method and status; 0: no answer.",
        method=("GET", "POST", "PUT", "DELETE"),
        status=LAGO_STATUSES,
    )
    lago_seconds = histogram(
        "meterbridge_lago_request_duration_seconds", "Seconds of a request to Lago.", _LAGO_BUCKETS, request=()
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
    shifted_events = counter(
        "meterbridge_shifted_events_total",
        "Events billed in a later billing period than their usage, shifted when they were sealed or posted.",
        when=("seal", "post"),
    )
    after_end_events = gauge(
        "meterbridge_after_end_events",
        "Events posted after their subscription's end that no invoice of the org counts yet (project).",
    )
    after_end_usd = gauge("meterbridge_after_end_usd", "Dollars of these events (project).")
    rebilled_events = counter(
        "meterbridge_rebilled_events_total",
        "Events posted after their subscription's end and billed again; given_up after 40 days; failed: looks that Postgres refused (project).",
        outcome=("rebilled", "given_up", "failed"),
    )
    lago_webhooks = counter(
        "meterbridge_lago_webhooks_total",
        "Webhooks of Lago by kind and result; or the reason why Lago must send them again (api).",
        kind=WEBHOOK_KINDS,
        outcome=WEBHOOK_OUTCOMES,
    )

    def lago_response_seen(self, kind: str, outcome: str) -> None:
        """Count a webhook of Lago; `outcome` is its result, or the reason of its refusal."""
        word = kind.partition(".")[0]
        self.lago_webhooks.labels(word if word in WEBHOOK_KINDS else "other", outcome).inc()

    def not_billed(self, reason: str, events: int) -> None:
        """Count events that Lago accepted and then said it will not bill."""
        self.failed_events.labels(reason).inc(events)

    def watch_breaker(self, state: Callable[[], State]) -> None:
        """Export the state of the circuit breaker; each scrape calls `state`, in any thread."""
        self.breaker.set_function(lambda: BREAKER_STATES[state()])

    def watch_lago(
        self, resend_is_safe: Callable[[], bool], too_old: Callable[[], bool], limit: Callable[[], float]
    ) -> None:
        """Export the properties and the rate limit of this Lago; each scrape calls these, in any thread."""
        self.resend_is_safe.set_function(resend_is_safe)
        self.lago_too_old.set_function(too_old)
        self.lago_limit.set_function(limit)

    def lago_requested(self, request: str, method: str, status: int, seconds: float) -> None:
        """`on_request` of LagoClient. The hook of the delivery reports the same posts, so a process uses one of the two."""
        self.lago_requests.labels(method, status).inc()
        self.lago_seconds.labels(request).observe(seconds)
