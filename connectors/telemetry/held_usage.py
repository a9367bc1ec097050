"""Logs when usage begins to be held, once per customer and reason, and exports how long the oldest held usage has waited."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from schemas.moments import SECOND_US
from schemas.money import plain
from streams.core.metering.conservation import sum_of_windows
from streams.runtime import clock

if TYPE_CHECKING:
    from connectors.telemetry.metrics import Metrics
    from streams.core.metering.ledger_state import LedgerState

#: Customers that one scan names in the log. A flood of unknown names is only counted.
_NAMED = 10

_log = structlog.get_logger(__name__)


class HeldUsageMonitor:
    """Watches the held usage in the ledgers of this process; its owner calls `look` for each ledger from time to time."""

    def __init__(self, metrics: "Metrics", now_us: Callable[[], int] = clock.now_us) -> None:
        self._metrics = metrics
        self._now_us = now_us
        #: By partition and customer: the reasons that were logged since the customer's usage began to be held.
        self._logged: dict[int, dict[str, set[str]]] = {}
        self._oldest_us: dict[int, int] = {}
        self._on_disk: dict[int, int] = {}
        self._crowded: set[int] = set()
        metrics.held_age.set_function(self.oldest_s)

    def look(self, partition: int, ledger: "LedgerState") -> None:
        """Compare the ledger with the last call.

        A customer is logged again if its usage is held for a reason that was not logged.
        """
        logged = self._logged.get(partition, {})
        now = {customer: {ledger.windows[first].held for first in firsts} for customer, firsts in ledger.held.items()}
        # Usage that was held when the ledger was opened is logged again: after a restart no other line names it.
        cold = ledger.cold
        names = now.keys() - logged.keys()
        if cold is not None and cold.windows:  # these customers were logged before their usage was moved to disk
            names = {name for name in names if not cold.has(name)}
        self._on_disk[partition] = 0 if cold is None else cold.customers
        if partition in self._logged:  # otherwise the usage was held before this process had the ledger
            self._metrics.newly_held.inc(len(names))
        new = sorted(
            (customer, reason)
            for customer, why in now.items()
            if customer in logged or customer in names
            for reason in why - logged.get(customer, set())
        )
        self._logged[partition] = {customer: why | logged.get(customer, set()) for customer, why in now.items()}
        for customer, reason in new[:_NAMED]:
            windows = [ledger.windows[first] for first in ledger.held[customer]]
            held = sum_of_windows(window for window in windows if window.held == reason)
            _log.warning("usage_held", customer=customer, reason=reason, calls=held.calls, usd=plain(held.cost))
        if len(new) > _NAMED:
            _log.warning("usage_held_of_more_customers", partition=partition, count=len(new) - _NAMED)
        oldest = [ledger.windows[first].min_end_us for firsts in ledger.held.values() for first in firsts]
        if cold is not None and (there := cold.oldest_us()) is not None:
            oldest.append(there)
        self._show(partition, ledger)
        self._forget_age(partition)
        if oldest:
            self._oldest_us[partition] = min(oldest)
        self._metrics.held_customers.set(len(set().union(*self._logged.values())) + sum(self._on_disk.values()))

    def close(self, partition: int) -> None:
        """Forget a partition that moved to another worker."""
        self._logged.pop(partition, None)
        self._on_disk.pop(partition, None)
        self._crowded.discard(partition)
        metrics = self._metrics
        for gauge in (metrics.ledger_held_customers, metrics.ledger_held_windows, metrics.held_over_bound):
            gauge.labels(partition).set(0)
        self._forget_age(partition)

    def oldest_s(self) -> float:
        """Return seconds since the end of the oldest call that is held in this process; 0 = none is held."""
        oldest_us = min(self._oldest_us.values(), default=None)
        return 0.0 if oldest_us is None else max(0.0, (self._now_us() - oldest_us) / SECOND_US)

    def _show(self, partition: int, ledger: "LedgerState") -> None:
        """Export the sizes of a ledger, and log once if it keeps more in memory than the bound.

        The ledger itself logs the usage that it moves to disk.
        """
        windows = ledger.held_windows()
        self._metrics.ledger_held_customers.labels(partition).set(
            len(self._logged[partition]) + self._on_disk[partition]
        )
        self._metrics.ledger_held_windows.labels(partition).set(windows)
        self._metrics.held_over_bound.labels(partition).set(ledger.cold is not None and windows > ledger.cold.room)
        if ledger.over() <= 0:
            self._crowded.discard(partition)
        elif partition not in self._crowded:
            self._crowded.add(partition)
            in_memory = len(ledger.windows) - len(ledger.open)
            _log.warning("held_usage_over_bound", partition=partition, windows=in_memory, see="docs/stuck-usage.md")

    def _forget_age(self, partition: int) -> None:
        self._oldest_us.pop(partition, None)
