"""The metrics of held usage."""

from connectors.telemetry.metric_definitions import counter, gauge
from streams.core.mapping.held_reasons import HELD_REASONS


class HeldMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    held_windows = gauge("meterbridge_held_windows", "Windows that wait for a mapping or a subscription.")
    held_calls = gauge("meterbridge_held_calls", "Calls in held windows.", reason=HELD_REASONS)
    held_cost = gauge("meterbridge_held_cost_usd", "Dollars in held windows.", reason=HELD_REASONS)
    newly_held = counter("meterbridge_newly_held_customers_total", "Customers whose usage began to be held.")
    held_customers = gauge("meterbridge_held_customers", "Customers with held usage.")
    held_age = gauge("meterbridge_held_oldest_seconds", "Seconds since the end of the oldest held call; 0: none.")
    held_on_disk = gauge("meterbridge_held_windows_on_disk", "Held windows on disk, beyond HELD_IN_MEMORY.")
    held_over_bound = gauge(
        "meterbridge_held_over_bound", "1: the ledger holds more windows than HELD_IN_MEMORY.", partition=()
    )
    ledger_held_customers = gauge(
        "meterbridge_ledger_held_customers", "Customers with held usage in a partition's ledger.", partition=()
    )
    ledger_held_windows = gauge(
        "meterbridge_ledger_held_windows", "Held windows in a partition's ledger.", partition=()
    )
    held_straddled = counter(
        "meterbridge_held_straddled_total",
        "Held windows billed as a whole, by their last call, although a change of the mapping or period lies in them.",
    )
