"""The projector's sensors as metrics: rows, failures, and the lag of each topic."""

import time
from decimal import Decimal
from typing import TYPE_CHECKING

from streams.agents.projector import Projected

if TYPE_CHECKING:
    from connectors.telemetry.metrics import Metrics


class ProjectorSensors:
    """`streams.agents.projector.ProjectSensors`; a subclass sets `_metrics`."""

    _metrics: "Metrics"

    def __init__(self) -> None:
        self._oldest: dict[str, dict[int, int]] = {}

    def projected(self, topic: str, projected: Projected) -> None:  # noqa: ARG002  # the protocol's
        """Count the rows of a batch that is in Postgres."""
        for table, count in projected.rows.items():
            self._metrics.projected_rows.labels(table).inc(count)
        for reason, count in projected.skipped.items():
            self._metrics.projection_skipped.labels(reason).inc(count)
        for kind, count in projected.doubled.items():
            self._metrics.doubled_calls.labels(kind).inc(count)

    def projection_failed(self, reason: str) -> None:
        """Count a failed write to Postgres; the projector repeats it."""
        self._metrics.postgres_failures.labels(reason).inc()

    def projecting(self, topic: str, partition: int, oldest_ms: int | None) -> None:
        """Note the record time of the batch that a partition projects now or has projected last; None: it is at the end."""
        if topic not in self._oldest:
            self._oldest[topic] = {}
            self._metrics.watch_projector(topic, lambda: self._age_s(topic))
        if oldest_ms is None:
            self._oldest[topic].pop(partition, None)
        else:
            self._oldest[topic][partition] = oldest_ms

    def late_calls(self, outcome: str, calls: int) -> None:
        """Count calls beyond the horizon by outcome; `failed` with 0 calls is an error of ours."""
        self._metrics.late_calls.labels(outcome).inc(max(calls, outcome == "failed"))

    def rebilled(self, outcome: str, events: int) -> None:
        """Count events that were posted after an end and billed again; `failed` with 0 events is an error of ours."""
        self._metrics.rebilled_events.labels(outcome).inc(max(events, outcome == "failed"))

    def after_end(self, events: int, usd: Decimal) -> None:
        """Export how many events were posted after an end and are on no invoice yet, and their dollars."""
        self._metrics.after_end_events.set(events)
        self._metrics.after_end_usd.set(float(usd))

    def lago_requested(self, request: str, status: int, seconds: float) -> None:
        """Count a request of a background task of the projector to Lago."""
        self._metrics.lago_requested(request, status, seconds)

    def _age_s(self, topic: str) -> float:
        """A scraper's thread calls this, so the values are copied first."""
        oldest = list(self._oldest[topic].values())
        return max(0.0, time.time() - min(oldest) / 1000) if oldest else 0.0
