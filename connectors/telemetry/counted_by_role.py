"""Exports the counts of `streams.runtime.role_counts`: unreadable records, and interruptions of background tasks."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from streams.runtime import kept_up, unreadable

#: The names of the background tasks.
TASKS: Final = (
    *(
        "credit_upkeep",
        "forget_customers",
        "heartbeat",
        "late_calls",
        "learn_orgs",
        "learn_subscriptions",
        "learnt_ends",
    ),
    *("log_partitions", "map_by_identity", "minute_summary", "outgoing_webhooks", "partition_reports", "poll_orgs"),
    *("provider_health", "show_totals", "subscribe_mapped", "summary_refresh", "watch_lago", "watch_queues"),
    *("write_access", "write_audit", "write_key_use", "write_provider_keys"),
)
#: The purposes for which processes read our own records.
TABLES: Final = ("customers", "ledger", "orgs", "rates", "receipts", "rejected")


class _Counted(Collector):
    """A counter with one label. Its known values begin at 0."""

    def __init__(self, name: str, meaning: str, label: str, known: Iterable[str], counts: Counter[str]) -> None:
        self._described = name, meaning, label
        self._known = known
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counts by the label."""
        name, meaning, label = self._described
        family = CounterMetricFamily(name, meaning, labels=[label])
        for value in sorted({*self._known, *self._counts}):
            family.add_metric([value], self._counts[value])
        yield family


def watch_counts(registry: CollectorRegistry) -> None:
    """Export the counts of the current task's role in this registry."""
    name, meaning = "meterbridge_unreadable_records", "Records that a table or a ledger could not read."
    registry.register(_Counted(name, meaning, "table", TABLES, unreadable.COUNTS.of_role()))
    name = "meterbridge_background_task_interruptions"
    meaning = "Times that a task beside the work of a process ended, and was begun again 5 s later."
    registry.register(_Counted(name, meaning, "task", TASKS, kept_up.INTERRUPTED.of_role()))
