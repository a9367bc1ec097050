"""The metrics of further Lago organisations. An operator chooses at most 50 names, so the names may be labels."""

from collections.abc import Callable
from typing import Final

from connectors.telemetry.delivery_metrics import BREAKER_STATES, DeliveryMetrics
from connectors.telemetry.metric_definitions import counter, gauge
from streams.core.delivery.circuit_breaker import State

#: Statuses that begin at zero, so that `increase()` shows the first response.
_STATUSES: Final = (200, 401, 403)


class OrganizationMetrics(DeliveryMetrics):
    """A part of `Metrics`. The default organisation has the metrics without this label."""

    organization_breaker = gauge(
        "meterbridge_lago_organization_breaker_state",
        "Circuit breaker of a further Lago organisation: 0 closed, 1 half open, 2 open (sink, retry).",
        organization=(),
    )
    organization_requests = counter(
        "meterbridge_lago_organization_requests_total",
        "Requests to a further Lago organisation by HTTP status; 0: no answer came.",
        organization=(),
        status=(),
    )
    organization_waiting = gauge(
        "meterbridge_lago_organization_waiting_seconds",
        "Age of the oldest event of a further Lago organisation that is being posted; 0: none waits (sink).",
        organization=(),
    )

    def watch_organization(self, organization: str, state: Callable[[], State]) -> None:
        """Export the breaker of a further Lago organisation; each scrape calls `state`, in any thread."""
        self.organization_breaker.labels(organization).set_function(lambda: BREAKER_STATES[state()])
        self.organization_waiting.labels(organization)

    def requested_of(self, organization: str) -> Callable[[str, str, int, float], None]:
        """Return `on_request` for the LagoClient of an organisation; for the default organisation this is
        `lago_requested`.
        """
        if not organization:
            return self.lago_requested
        for status in _STATUSES:
            self.organization_requests.labels(organization, status)

        def requested(request: str, _method: str, status: int, seconds: float) -> None:
            self.organization_requests.labels(organization, status).inc()
            self.lago_seconds.labels(request).observe(seconds)

        return requested
