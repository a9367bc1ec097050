"""Exports how often the background tasks of this process were interrupted."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from streams.runtime.kept_up import INTERRUPTED

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
    *(
        "provider_health",
        "show_totals",
        "subscribe_mapped",
        "summary_refresh",
        "watch_lago",
        "watch_queues",
        "write_access",
    ),
    *("write_audit", "write_key_use", "write_provider_keys"),
)


class _Interrupted(Collector):
    def __init__(self) -> None:
        self._counts = INTERRUPTED.of_role()

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counts by task, from 0 on."""
        family = CounterMetricFamily(
            "meterbridge_background_task_interruptions",
            "Times that a task beside the work of a process ended, and was begun again 5 s later.",
            labels=["task"],
        )
        for task in sorted({*TASKS, *self._counts}):
            family.add_metric([task], self._counts[task])
        yield family


def watch_background_tasks(registry: CollectorRegistry) -> None:
    """Export the counts in this registry."""
    registry.register(_Interrupted())
