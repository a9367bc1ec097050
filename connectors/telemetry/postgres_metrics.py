"""The metrics of Postgres."""

from collections.abc import Callable

from connectors.telemetry.metric_definitions import counter, gauge
from schemas.reasons import API_POOLS, POSTGRES_FAILURES, SKIPPED
from schemas.tables import TABLES


class PostgresMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

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
    api_postgres_refused = counter(
        "meterbridge_api_postgres_refused_total",
        "Requests that found no free connection to Postgres, or no turn of their account, in 2 s, by pool (api).",
        pool=API_POOLS,
    )
    usage_days_failed = gauge(
        "meterbridge_usage_days_failed",
        "Days whose sums of analytics could not be made; they are tried again (project).",
    )

    def watch_projector(self, topic: str, lag_s: Callable[[], float]) -> None:
        """Export the lag of a topic's projection in seconds; each scrape calls `lag_s`, in any thread."""
        self.projector_lag.labels(topic).set_function(lag_s)
