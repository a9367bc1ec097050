"""The sensors of the ingress: they move the metrics of its requests and elements."""

from functools import cache

from connectors.telemetry.metrics import Metrics


class IngressSensors:
    """`on_request`, `on_elements` and `on_left_out` of the ingress. They cache the labelled metrics, because a lookup per request is slow."""

    def __init__(self, metrics: Metrics) -> None:
        self._request = cache(metrics.webhook_requests.labels)
        self._outcome = cache(metrics.elements.labels)
        self._failed = metrics.failed_events
        self.left_out = metrics.left_out.inc

    def requested(self, source: str, status: int) -> None:
        """Count an answered request."""
        self._request(source, status).inc()

    def elements(self, outcome: str, count: int) -> None:
        """Count elements; `outcome` is `accepted`, `ignored` or the reason of a rejection."""
        self._outcome(outcome).inc(count)
        if outcome not in ("accepted", "ignored"):
            self._failed.labels(outcome).inc(count)
