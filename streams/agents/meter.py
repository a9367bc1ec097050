"""The meter's work on one raw partition: folds fetch batches, seals windows that are due, releases held ones."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec
import structlog
from aiokafka import ConsumerRecord

from schemas.customers import CustomerRecord, OrgRecord
from schemas.errors import TopicProblem
from schemas.ledger import Position, Window
from schemas.policy import MeterPolicy
from schemas.rates import CARD_VERSION, RateCard
from schemas.record_sizes import is_outsized_call
from schemas.records import WriteOff
from schemas.rounding import quantum
from streams.agents.traces import MeterTraces
from streams.core.mapping.resolve import Resolver
from streams.core.mapping.time_spans import NEVER, next_border
from streams.core.metering.close_window import coalesce, due_windows, release, seal
from streams.core.metering.early_close import beyond_bound
from streams.core.metering.fold import Fold
from streams.core.metering.grouping import unnamed, with_group_names
from streams.core.metering.lago_event import part_prefix
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.normalise import FUTURE_US
from streams.core.metering.step_changes import Changes
from streams.core.metering.write_off import write_off
from streams.core.pricing.cards import Rates
from streams.runtime.compacted_table import CompactedTable
from streams.runtime.forwarding import Forwarder
from streams.state.eviction import WindowEviction
from streams.state.ledger import Ledger
from streams.state.step_writes import order_in

log = structlog.get_logger(__name__)

#: The most records that are folded, and windows that are sealed or released, in one transaction: at most 5 000 changes
#: each.
FOLD_LIMIT = 4000
SEAL_LIMIT = 1500
#: The most steps with windows from disk in one punctuation. Between punctuations, waiting calls are folded.
_DISK_STEPS = 16
_COALESCE_EVERY_US = 60_000_000


class MeterSensors(Protocol):
    """The reports of the meter. Counts are metrics; healthy traffic is not logged."""

    def folded(self, partition: int, changes: Changes, seconds: float) -> None: ...
    def sealed(self, changes: Changes) -> None: ...
    def ledger(self, partition: int, state: LedgerState | None) -> None: ...
    def two_routes(self, customer_id: str, one: str, other: str) -> None: ...
    def straddled(self, windows: int) -> None: ...


class MeterWork:
    """Implements `streams.runtime.partition_task.PartitionProcessor` for the meter."""

    def __init__(
        self,
        ledger: Ledger,
        customers: CompactedTable[CustomerRecord],
        orgs: CompactedTable[OrgRecord],
        policy: MeterPolicy,
        topic_id: str,
        mapping_delay_s: float,
        now_us: Callable[[], int],
        sensors: MeterSensors,
        rate_cards: CompactedTable[RateCard],
        forwarder: Forwarder,
        traces: MeterTraces | None = None,
    ) -> None:
        self._ledger = ledger
        self._customers = customers
        self._orgs = orgs
        self._policy = policy
        self._prefix = part_prefix(policy.deployment, topic_id, ledger.partition)
        self._fold = Fold(policy, self._prefix)
        self._mapping_delay_s = mapping_delay_s
        self._now_us = now_us
        self._sensors = sensors
        self._resolve = Resolver(customers.table, orgs.table, policy.out_of_period_policy, policy.event_code)
        self._rate_cards = rate_cards
        self._forwarder = forwarder
        self._traces = traces
        self._rates: Rates | None = None
        self._resolved = self._released = (-1, -1, -1)
        self._looks_us = NEVER
        self._coalesced_us = 0
        self._on_disk = WindowEviction(customers, orgs.table)
        self._early = False
        self._named = False

    async def open(self) -> int:
        """Open the ledger; return the next raw offset."""
        await self._customers.start()
        await self._orgs.start()
        await self._rate_cards.start()
        state = await self._ledger.open()
        self._released = (-1, -1, -1)
        self._named = False
        self._on_disk.reopened()
        self._sensors.ledger(self._ledger.partition, state)
        return state.position.next

    async def process(self, records: Sequence[ConsumerRecord]) -> int:
        """Fold a fetch batch, in transactions of at most `FOLD_LIMIT` records.

        Raises:
            TopicProblem: `offset_gap`: raw offsets are not contiguous. No producer writes the raw topic in transactions
                and Kafka does not compact it, so records are lost.
        """
        for part in _steps(records):
            expected = self._state.position.next
            if part[0].offset != expected or part[-1].offset != expected + len(part) - 1:
                raise TopicProblem("offset_gap", f"expected offsets from {expected} on, without a gap")
            await self._fresh()
            own = await self._forwarded(part) if self._state.position.grown_from else part
            while self._state.position.next <= part[-1].offset:  # a write-off order may take several transactions
                began = self._now_us()
                changes = self._step(own) if own else Changes(msgspec.structs.replace(self._state.position))
                if len(own) < len(part):
                    changes.position.next = part[-1].offset + 1
                    changes.position.forwarded += len(part) - len(own)
                await self._commit(changes, began, own)
                self._count_changes(changes)
                self._sensors.folded(self._ledger.partition, changes, (self._now_us() - began) / 1e6)
            for pair in self._fold.routes.taken():
                self._sensors.two_routes(*pair)
        return self._state.position.next

    async def punctuate(self) -> None:
        """Release held usage that has a target now, then seal the windows that are due."""
        state = self._state
        if not state.windows and not (state.cold and state.cold.windows):
            return
        await self._fresh()
        if not self._named:
            await self._name()
        for _ in range(_DISK_STEPS):
            await self._look(state)
            await self._seal_early(state)
            if not self._on_disk.busy:
                break
        now_us = self._now_us()
        while due := due_windows(state, now_us, self._policy, SEAL_LIMIT):
            await self._seal(due)
        if state.held and now_us - self._coalesced_us > _COALESCE_EVERY_US:
            self._coalesced_us = now_us
            customers, orgs = self._customers.table, self._orgs.table
            rules = (self._policy, now_us, SEAL_LIMIT, self._rates)
            while not (changes := coalesce(state, customers, orgs, *rules)).empty:
                await self._ledger.commit(changes)
        self._sensors.ledger(self._ledger.partition, state)

    async def close(self) -> None:
        """Close the ledger."""
        try:
            await self._forwarder.stop()
        finally:
            await self._ledger.close()
        self._sensors.ledger(self._ledger.partition, None)

    def in_transaction(self) -> bool:
        """Return whether `close` must wait for a transaction."""
        return self._ledger.in_transaction()

    @property
    def _state(self) -> LedgerState:
        if self._ledger.state is None:
            raise TopicProblem("not_open", "the ledger is closed")
        return self._ledger.state

    @property
    def _version(self) -> tuple[int, int, int]:
        return self._customers.version, self._orgs.version, self._rate_cards.version

    async def _fresh(self) -> None:
        """Wait until the tables are younger than the mapping delay. Older tables may lack a mapping or a price that
        applies.

        Raises:
            TopicProblem: `newer_rate_card`: a later release wrote a version, and this release would price usage
                wrongly.
        """
        await self._customers.wait_fresh(self._mapping_delay_s)
        await self._orgs.wait_fresh(self._mapping_delay_s)
        await self._rate_cards.wait_fresh(self._mapping_delay_s)
        if self._version != self._resolved:
            cards, unit = self._rate_cards.table.values(), quantum(self._policy.cost_decimals)
            if newer := [card.id for card in cards if card.v > CARD_VERSION]:
                raise TopicProblem("newer_rate_card", f"{min(newer)}: its format is of a later release")
            self._rates = Rates(cards, self._orgs.table, unit) if cards else None
            self._resolve.forget()
            self._resolved = self._version
        self._resolve.now_us = self._now_us()

    async def _name(self) -> None:
        """Give names to the group values in windows of an older release, while the setting is still the same as in that
        release.
        """
        while older := unnamed(self._state)[:SEAL_LIMIT]:
            await self._ledger.commit(with_group_names(self._state, older, self._policy.group_by))
        self._named = True

    async def _forwarded(self, records: Sequence[ConsumerRecord]) -> Sequence[ConsumerRecord]:
        """Forward records whose key belongs to a newer partition; return the others. Control records stay, and
        those that the ledger refuses for their size."""
        position, partition = self._state.position, self._ledger.partition
        own, elsewhere = [], []
        for record in records:
            target = self._forwarder.target(record.key, position.grown_from, position.partitions)
            if target == partition or is_outsized_call(record) or _order(record) is not None:
                own.append(record)
            else:
                elsewhere.append((record, target))
        if elsewhere:
            await self._forwarder.send(elsewhere)
        return own

    def _step(self, records: Sequence[ConsumerRecord]) -> Changes:
        latest_ms = (self._now_us() + FUTURE_US) // 1000
        order = _order(records[0])
        if order is not None:
            record = records[0]
            customer_id = (record.key or b"").decode(errors="replace")
            time_ms = min(record.timestamp, latest_ms)
            self._released = (-1, -1, -1)  # `release` examines the windows that the order brought back from disk
            return write_off(self._state, record.offset, time_ms, customer_id, order, self._prefix)
        changes = self._fold(self._state, records, self._resolve, latest_ms, self._rates)
        held = {window.customer_id for window in changes.windows.values() if window is not None and window.held}
        self._looks_us = min(self._looks_us, self._next_border(held, self._resolve.now_us or 0))
        if not self._policy.window_us:
            self._seal_now(changes, [window for window in changes.windows.values() if window and not window.held])
        elif changes.ready:
            self._seal_now(changes, changes.ready)
        return changes

    async def _look(self, state: LedgerState) -> None:
        """Release windows that have a target, and move held windows beyond the bound to disk."""
        customers, orgs, at_us = self._customers.table, self._orgs.table, self._now_us()
        self._on_disk.notice(state, self._version, at_us)
        brought = self._on_disk.wake(state)
        everyone = self._version != self._released or at_us >= self._looks_us
        if state.held and (everyone or brought):
            names = None if everyone else brought
            rules = (self._policy, SEAL_LIMIT, at_us, names, self._rates)
            while not (changes := release(state, customers, orgs, *rules)).empty:
                await self._ledger.commit(changes)
                self._sensors.straddled(changes.straddled)
            borders_us = self._next_border(state.held if everyone else brought & state.held.keys(), at_us)
            if everyone:
                self._released, self._looks_us = self._version, borders_us
            self._looks_us = min(self._looks_us, borders_us)
        if state.over() > 0:
            partition = self._ledger.partition
            while self._on_disk.relieve(state, partition, at_us if self._version == self._released else None):
                await asyncio.sleep(0)

    async def _seal_early(self, state: LedgerState) -> None:
        """Seal the windows with the fewest calls if too many are open."""
        early = beyond_bound(state, self._now_us(), self._policy)
        if early and not self._early:
            self._early = True
            log.warning(
                "windows_sealed_early", partition=self._ledger.partition, windows=len(early), see="docs/operations.md"
            )
        for start in range(0, len(early), SEAL_LIMIT):
            await self._seal(early[start : start + SEAL_LIMIT])

    async def _seal(self, windows: Sequence[Window]) -> None:
        changes = self._sealed(self._state.position, windows)
        await self._commit(changes, self._now_us())
        self._count_changes(changes)

    async def _commit(self, changes: Changes, began_us: int, records: Sequence[ConsumerRecord] = ()) -> None:
        """Commit a step that folds `records`, or seals windows."""
        if self._traces is None:
            await self._ledger.commit(changes)
        else:
            committed = self._traces.step(records, changes, began_us)
            await self._ledger.commit(changes)
            committed()

    def _next_border(self, names: Iterable[str], now_us: int) -> int:
        """Return when one of these customers may get a target without a change of a table."""
        customers, orgs = self._customers.table, self._orgs.table
        return min((next_border(name, customers, orgs, now_us) for name in names), default=NEVER)

    def _sealed(self, position: Position, windows: Sequence[Window]) -> Changes:
        partition, now_us = self._ledger.partition, self._now_us()
        return seal(position, windows, self._orgs.table, self._policy, self._prefix, partition, now_us)

    def _count_changes(self, changes: Changes) -> None:
        """Report a committed step. Windows that could not be sealed may belong to the next subscription, so `release`
        examines them again.
        """
        if changes.sealed:
            self._sensors.sealed(changes)
        if changes.kept:
            self._released = (-1, -1, -1)

    def _seal_now(self, changes: Changes, ready: Sequence[Window]) -> None:
        """Seal in the same transaction all windows that get no further call: each call in per-call mode, and other
        metered events.
        """
        sealed = self._sealed(changes.position, ready)
        changes.sealed, changes.shifted, changes.kept = sealed.sealed, sealed.shifted, sealed.kept
        changes.position = sealed.position
        for first, window in sealed.windows.items():
            if window is None:
                del changes.windows[first]
            else:
                changes.windows[first] = window


def _steps(records: Sequence[ConsumerRecord]) -> Iterator[Sequence[ConsumerRecord]]:
    """Yield slices of at most `FOLD_LIMIT` records, in order; a write-off order is a slice of its own."""
    start = 0
    for number, record in enumerate(records):
        if record.headers and _order(record) is not None:
            yield from _cut(records[start:number])
            yield records[number : number + 1]
            start = number + 1
    yield from _cut(records[start:])


def _cut(records: Sequence[ConsumerRecord]) -> Iterator[Sequence[ConsumerRecord]]:
    for start in range(0, len(records), FOLD_LIMIT):
        yield records[start : start + FOLD_LIMIT]


def _order(record: ConsumerRecord) -> WriteOff | None:
    return order_in(record.headers, record.value)
