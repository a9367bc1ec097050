"""The metrics of metering: calls, windows and ledgers."""

from typing import Final

from connectors.telemetry.ingress_metrics import REQUEST_BUCKETS
from connectors.telemetry.metric_definitions import counter, gauge, histogram
from connectors.telemetry.unbilled_usage import DOUBTS
from schemas.reasons import DOUBLED
from streams.core.metering.decisions import DECISIONS

LAWS: Final = ("received", "folded")


class MeteringMetrics:
    """A part of `connectors.telemetry.metrics.Metrics`."""

    event_processing = histogram(
        "event_processing_duration_seconds",
        "Seconds from the fetch of a batch of calls to its committed transaction.",
        REQUEST_BUCKETS,
    )
    calls = counter("meterbridge_calls_total", "Calls by the meter's decision.", decision=DECISIONS)
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
    two_routes = counter(
        "meterbridge_two_routes_total",
        "Customers whose usage came by two callbacks within an hour, so that calls may be billed twice (meter).",
        route=(),
        other=(),
    )
    doubled_calls = counter(
        "meterbridge_doubled_calls_total",
        "Billed calls that look like one: bridge: one request with two ids; job: one job that is billed twice; "
        "copy: one call that was counted twice (project).",
        kind=DOUBLED,
    )
    late_calls = counter(
        "meterbridge_late_calls_total",
        "Calls older than the dedupe retention: requeued, known, or waiting because the log cannot tell; failed: looks that Postgres refused (project).",
        outcome=("requeued", "known", "waiting", "failed"),
    )
    dedupe_identities = gauge("meterbridge_dedupe_identities", "Identities of calls remembered for deduplication.")
    open_windows = gauge("meterbridge_open_windows", "Windows that accept calls and will be sealed.")
    ledgers_open = gauge("meterbridge_ledgers_open", "Partitions whose ledger is open in this process.")
    conservation = gauge(
        "meterbridge_ledger_imbalance",
        "By how much the sums of the ledgers do not agree: must be zero.",
        law=LAWS,
        unit=("calls", "usd"),
    )
    partition_halted = gauge(
        "meterbridge_partition_halted",
        "1: the partition has stopped. It is tried again every minute, and mostly an operator must remove the cause first.",
        topic=(),
        partition=(),
        reason=(),
    )
    fetch_gaps = counter(
        "meterbridge_fetch_gaps_total",
        "Fetched batches that did not follow the one before, and were fetched again.",
        topic=(),
    )
