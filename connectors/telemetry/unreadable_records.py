"""Exports how many records the tables and ledgers of this process could not read."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from streams.runtime.unreadable import COUNTS

#: The purposes for which processes read our own records.
TABLES: Final = ("customers", "ledger", "orgs", "rates", "receipts", "rejected")


class _Unreadable(Collector):
    def __init__(self) -> None:
        self._counts = COUNTS.of_role()

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counts by table, from 0 on."""
        family = CounterMetricFamily(
            "meterbridge_unreadable_records", "Records that a table or a ledger could not read.", labels=["table"]
        )
        for table in sorted({*TABLES, *self._counts}):
            family.add_metric([table], self._counts[table])
        yield family


def watch_unreadable(registry: CollectorRegistry) -> None:
    """Export the counts in this registry."""
    registry.register(_Unreadable())
