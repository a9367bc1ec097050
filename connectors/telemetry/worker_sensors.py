"""The sensors of the worker roles, as metrics."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import structlog

from connectors.telemetry.metering_metrics import LAWS
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.minute_summary import MinuteSummary
from connectors.telemetry.worker_health import WorkerHealth
from schemas.ledger import Position, Sum
from schemas.money import add
from schemas.records import Receipt
from streams.agents.projector import Projected
from streams.core.delivery.receipt_states import FAILED, PENDING
from streams.core.mapping.held_reasons import HELD_REASONS, NO_MAPPING
from streams.core.metering.conservation import off_by, sum_of_windows

if TYPE_CHECKING:
    # Only the meter needs numpy, for its state.
    from streams.core.metering.ledger_state import LedgerState
    from streams.core.metering.step_changes import Changes

#: A scan of all windows takes milliseconds, so it runs at most this often, in seconds.
LOOK_EVERY_S = 5.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _WindowScan:
    """The result of one scan of a ledger's windows."""

    at: float
    off_by: tuple[Sum, Sum]
    held: dict[str, Sum]


class WorkerSensors:
    """Turns what the worker roles report into metrics: `streams.components.RoleMetrics`."""

    def __init__(self, metrics: Metrics, monotonic: Callable[[], float]) -> None:
        self.minute = MinuteSummary()
        self.health = WorkerHealth(monotonic)
        self._metrics = metrics
        self._monotonic = monotonic
        self._ledgers: dict[int, LedgerState] = {}
        self._sealed: dict[int, int] = {}
        self._looks: dict[int, _WindowScan] = {}
        self._positions: dict[int, Position] = {}
        self._oldest_ms: dict[str, dict[int, int]] = {}
        self._lanes: dict[str, dict[tuple[str, int], Callable[[], int | None]]] = {}

    def folded(self, partition: int, changes: "Changes", seconds: float) -> None:
        """Count a batch of calls that is in the ledger."""
        self._metrics.event_processing.observe(seconds)
        for code, count in changes.decisions.items():
            decision, _, reason = code.partition(":")
            self._metrics.calls.labels(decision).inc(count)
            if reason:
                self._metrics.failed_events.labels(reason).inc(count)
        self._metrics.unbilled_watch.noticed(changes.noticed)
        self._log_minute(partition, changes.position)
        self._count_sealed(partition, changes.position.seal_seq)
        self._show_sizes()

    def sealed(self, changes: "Changes") -> None:
        """Count the shifted events of a step."""
        self._metrics.shifted_events.labels("seal").inc(changes.shifted)

    def ledger(self, partition: int, ledger: "LedgerState | None") -> None:
        """Record the state of a ledger that was opened or ticked; None: the ledger was closed."""
        if ledger is None:
            for known in (self._ledgers, self._sealed, self._looks, self._positions):
                known.pop(partition, None)
            self._metrics.held_watch.close(partition)
            self._show_looks()
        else:
            self._ledgers[partition] = ledger
            self._log_minute(partition, ledger.position)
            self._count_sealed(partition, ledger.position.seal_seq)
            now = self._monotonic()
            look = self._looks.get(partition)
            if look is None or now - look.at >= LOOK_EVERY_S:
                self._looks[partition] = _look(ledger, now)
                self._metrics.held_watch.look(partition, ledger)
                self._show_looks()
        self._show_sizes()

    def two_routes(self, customer_id: str, one: str, other: str) -> None:
        """Count and log a customer whose usage arrived by two callbacks within an hour. The meter reports a pair once
        per hour.
        """
        self._metrics.two_routes.labels(one, other).inc()
        log.warning("usage_by_two_routes", customer=customer_id, routes=[one, other], see="docs/litellm.md")

    def unmapped(self) -> Iterator[str]:
        """Return the number of LiteLLM customers in the open ledgers whose usage is held because they have no mapping."""
        for ledger in list(self._ledgers.values()):
            for name, firsts in list(ledger.held.items()):
                if any(ledger.windows[first].held == NO_MAPPING for first in firsts):
                    yield name
            if ledger.cold is not None:
                yield from ledger.cold.names()

    def straddled(self, windows: int) -> None:
        """Count held windows that were released as a whole although a change of the mapping or period lies in them."""
        self._metrics.held_straddled.inc(windows)

    def settled(self, receipts: Sequence[Receipt]) -> None:
        """Count the durable receipts of posted events."""
        for receipt in receipts:
            self._metrics.receipts.labels(receipt.status).inc()
            self._metrics.shifted_events.labels("post").inc(bool(receipt.timestamp))
            self.minute.settled(receipt.status, receipt.cents)
            if receipt.status == FAILED:
                self._metrics.failed_events.labels(receipt.reason).inc()

    def partition_halted(self, topic: str, partition: int, reason: str) -> None:
        """Export that a partition is halted."""
        self._metrics.partition_halted.labels(topic, partition, reason).set(1)
        self.health.halted(topic, partition, reason)

    def partition_resumed(self, topic: str, partition: int, reason: str) -> None:
        """Export that a halted partition runs again, here or at another worker."""
        if self.health.resumed(topic, partition, reason):
            self._metrics.partition_halted.labels(topic, partition, reason).set(0)

    def lane_waits(
        self, organization: str, topic: str, partition: int, oldest_ms: Callable[[], int | None] | None
    ) -> None:
        """Export how long the oldest event of an organisation waits; None: the lane is closed."""
        lanes = self._lanes.setdefault(organization, {})
        if oldest_ms is None:
            lanes.pop((topic, partition), None)
        else:
            lanes[topic, partition] = oldest_ms
        self._metrics.organization_waiting.labels(organization).set_function(lambda: self._waiting_s(organization))

    def following(self, table: str, lag_s: Callable[[], float]) -> None:
        """Export the staleness of a table."""
        self._metrics.watch_table(table, lag_s)

    def fetch_gap(self, topic: str, partition: int, gaps: int) -> None:  # noqa: ARG002  # the protocol's
        """Count batches that were fetched again."""
        self._metrics.fetch_gaps.labels(topic).inc(gaps)

    def projected(self, topic: str, projected: Projected) -> None:  # noqa: ARG002  # the protocol's
        """Count the rows of a batch that is in Postgres."""
        for table, count in projected.rows.items():
            self._metrics.projected_rows.labels(table).inc(count)
        for reason, count in projected.skipped.items():
            self._metrics.projection_skipped.labels(reason).inc(count)
        for kind, count in projected.doubled.items():
            self._metrics.doubled_calls.labels(kind).inc(count)
        for reason, count in projected.undebited.items():
            self._metrics.credits_undebited.labels(reason).inc(count)

    def projection_failed(self, reason: str) -> None:
        """Count a failed write to Postgres; the projector repeats it."""
        self._metrics.postgres_failures.labels(reason).inc()

    def projecting(self, topic: str, partition: int, oldest_ms: int | None) -> None:
        """Record the record time of the batch that a partition projects now or has projected last; None: the partition
        is at its end.
        """
        if topic not in self._oldest_ms:
            self._oldest_ms[topic] = {}
            self._metrics.watch_projector(topic, lambda: self._age_s(topic))
        if oldest_ms is None:
            self._oldest_ms[topic].pop(partition, None)
        else:
            self._oldest_ms[topic][partition] = oldest_ms

    def providers(self, by_status: Mapping[str, int]) -> None:
        """Set how many pairs of provider and model have each status."""
        for status, count in by_status.items():
            self._metrics.providers.labels(status).set(count)

    def usage_days_failed(self, days: int) -> None:
        """Set how many days have sums of analytics that could not be made."""
        self._metrics.usage_days_failed.set(days)

    def late_calls(self, outcome: str, calls: int) -> None:
        """Count calls beyond the dedupe retention by outcome; `failed` with 0 calls is an error in Meterbridge."""
        self._metrics.late_calls.labels(outcome).inc(max(calls, outcome == "failed"))

    def rebilled(self, outcome: str, events: int) -> None:
        """Count events that were posted after an end and billed again; `failed` with 0 events is an error in
        Meterbridge.
        """
        self._metrics.rebilled_events.labels(outcome).inc(max(events, outcome == "failed"))

    def after_end(self, events: int, usd: Decimal) -> None:
        """Export how many events were posted after an end and are on no invoice yet, and their dollars."""
        self._metrics.after_end_events.set(events)
        self._metrics.after_end_usd.set(float(usd))

    def credit_books(self, overdraft_usd: Decimal, reservations: int, imbalance_usd: Decimal) -> None:
        """Export the state of the prepaid credits."""
        self._metrics.credit_overdraft.set(float(overdraft_usd))
        self._metrics.credit_reservations.set(reservations)
        self._metrics.credit_imbalance.set(float(imbalance_usd))

    def webhook_attempted(self, outcome: str) -> None:
        """Count an attempt to send an outgoing webhook; `error` is an error in Meterbridge."""
        self._metrics.webhooks_sent.labels(outcome).inc()

    def webhooks_waiting(self, messages: int, disabled_endpoints: int) -> None:
        """Export the waiting messages and the disabled endpoints."""
        self._metrics.webhooks_waiting.set(messages)
        self._metrics.webhooks_disabled.set(disabled_endpoints)

    def credit_upkeep_failed(self) -> None:
        """Count an error in Meterbridge while reservations and credits were ended."""
        self._metrics.credit_upkeep_failures.inc()

    def requested_of(self, organization: str) -> Callable[[str, str, int, float], None]:
        """Return a function that counts requests of a background task of the projector to a Lago organisation."""
        return self._metrics.requested_of(organization)

    def _count_sealed(self, partition: int, seal_seq: int) -> None:
        """Count events by the sequence number of the ledger, which has no gaps."""
        sealed = max(0, seal_seq - self._sealed.get(partition, seal_seq))
        self._sealed[partition] = seal_seq
        self._metrics.events_emitted.inc(sealed)
        self._metrics.receipts.labels(PENDING).inc(sealed)

    def _log_minute(self, partition: int, position: Position) -> None:
        """Add the difference from the last state of the ledger, without the usage that another worker counted."""
        before = self._positions.get(partition, position)
        self.minute.counted(before.counters, position.counters, add(position.margin, -before.margin))
        self._positions[partition] = position

    def _age_s(self, topic: str) -> float:
        """Return the staleness of a topic's table. A scraper's thread calls this, so the values are copied first."""
        oldest = list(self._oldest_ms[topic].values())
        return max(0.0, time.time() - min(oldest) / 1000) if oldest else 0.0

    def _waiting_s(self, organization: str) -> float:
        """Return how long an organisation's oldest event waits. A scraper's thread calls this, so the lanes are copied
        first.
        """
        waiting = [at_ms for lane in list(self._lanes[organization].values()) if (at_ms := lane()) is not None]
        return max(0.0, time.time() - min(waiting) / 1000) if waiting else 0.0

    def _show_sizes(self) -> None:
        metrics, ledgers = self._metrics, self._ledgers.values()
        metrics.ledgers_open.set(len(ledgers))
        metrics.dedupe_identities.set(sum(len(ledger.seen) for ledger in ledgers))
        metrics.open_windows.set(sum(len(ledger.open) for ledger in ledgers))
        on_disk = sum(ledger.cold.windows for ledger in ledgers if ledger.cold is not None)
        metrics.held_windows.set(on_disk + sum(len(ledger.windows) - len(ledger.open) for ledger in ledgers))
        metrics.held_on_disk.set(on_disk)

    def _show_looks(self) -> None:
        """Export the last scans. Absolute imbalances are added, so that the errors of two ledgers cannot cancel out."""
        looks = self._looks.values()
        for number, law in enumerate(LAWS):
            calls = sum(abs(look.off_by[number].calls) for look in looks)
            dollars = sum(abs(look.off_by[number].cost) for look in looks)
            self._metrics.conservation.labels(law, "calls").set(calls)
            self._metrics.conservation.labels(law, "usd").set(float(dollars))
        for reason in HELD_REASONS:
            sums = [look.held[reason] for look in looks if reason in look.held]
            self._metrics.held_calls.labels(reason).set(sum(amount.calls for amount in sums))
            self._metrics.held_cost.labels(reason).set(float(sum(amount.cost for amount in sums)))


def _look(ledger: "LedgerState", now: float) -> _WindowScan:
    held: dict[str, list[int]] = {}
    for firsts in ledger.held.values():
        for first in firsts:
            held.setdefault(ledger.windows[first].held, []).append(first)
    sums = {reason: sum_of_windows(ledger.windows[first] for first in firsts) for reason, firsts in held.items()}
    for reason, there in {} if ledger.cold is None else ledger.cold.sums.items():
        here = sums.get(reason, Sum())
        sums[reason] = Sum(here.calls + there.calls, add(here.cost, there.cost))
    return _WindowScan(now, off_by(ledger.position.counters, ledger.waiting()), sums)
