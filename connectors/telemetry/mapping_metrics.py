"""The metrics of mappings and the tables in memory."""

from collections.abc import Callable

from connectors.telemetry.metric_definitions import counter, gauge
from schemas.reasons import IDENTITY_OUTCOMES


class MappingMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    active_customers = gauge(
        "active_customers_total", "Customers whose mapping in force is active, without the canary (api)."
    )
    identities_asked = counter(
        "meterbridge_identities_asked_total",
        "Unmapped customers that Lago was asked about (meter).",
        outcome=IDENTITY_OUTCOMES,
    )
    table_staleness = gauge(
        "meterbridge_table_staleness_seconds", "Seconds since a table was last known to be complete.", table=()
    )

    def watch_table(self, table: str, lag_s: Callable[[], float]) -> None:
        """Export a table's staleness in seconds; each scrape calls `lag_s`, in any thread."""
        self.table_staleness.labels(table).set_function(lag_s)
