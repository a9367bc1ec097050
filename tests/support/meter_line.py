"""A partition's meter without Kafka: the real code, with a dictionary as its changelog."""

import asyncio
from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec

from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.ledger import Position, Window
from schemas.moments import SECOND_US
from schemas.policy import MeterPolicy
from schemas.records import LagoEvent, WriteOff
from streams.agents.meter import MeterWork
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes
from streams.core.metering.write_off import write_off
from streams.runtime.forwarding import Forwarder
from streams.state.changelog import restore
from streams.state.held_on_disk import EvictedWindowsFile
from streams.state.step_writes import CONTROL, WRITE_OFF
from tests.model.stand_ins import Silent
from tests.support.calls import NOON, raw, slp
from tests.support.own_changelog import OwnChangelog
from tests.support.snapshots import snapshot_from

PREFIX = "d-t-0-"
POLICY = MeterPolicy()
ORG = OrgRecord("org", periods=(Period("sub", 0),))
#: When all calls have ended, and when a mapping that was announced begins.
LATE, BEGINS = NOON + 1000 * SECOND_US, NOON + 2000 * SECOND_US


class Followed:
    """A table as the meter follows it."""

    def __init__(self) -> None:
        self.table: dict[str, Any] = {}
        self.members = self.version = 0

    def set(self, name: str, record: object | None) -> None:
        self.version += 1
        self.members += (name in self.table) is (record is None)
        self.table.pop(name, None) if record is None else self.table.update({name: record})

    async def start(self) -> None: ...
    async def wait_fresh(self, limit_s: float) -> None: ...


class Line(OwnChangelog):
    """A partition's ledger, whose worker keeps `room` held windows in memory; None = all of them. The meter's own work
    is done on it."""

    partition = 0

    def __init__(self, room: int | None, policy: MeterPolicy = POLICY) -> None:
        super().__init__()
        self.room = room
        self.policy = policy
        self.customers, self.orgs, self.rate_cards = Followed(), Followed(), Followed()
        self.orgs.set("org", ORG)
        self.number = 0
        self.now_us = LATE
        self.sealed: Counter[tuple[str, str, str]] = Counter()
        self.events: list[LagoEvent] = []
        self.enriched: list[bytes] = []
        self.taken_over(NOON)

    def restored(self, now_us: int = 0) -> LedgerState:
        ledger = LedgerState(Position(), None if self.room is None else EvictedWindowsFile(self.room))
        restore(ledger, snapshot_from(0, self.values), now_us)
        return ledger

    def taken_over(self, now_us: int) -> None:
        super().taken_over(now_us)
        self.work = MeterWork(
            _LedgerOf(self),  # type: ignore[arg-type]
            self.customers,  # type: ignore[arg-type]
            self.orgs,  # type: ignore[arg-type]
            self.policy,
            "t",
            5.0,
            lambda: self.now_us,
            Silent(),
            self.rate_cards,  # type: ignore[arg-type]
            Forwarder({}, "raw", 0),
        )
        asyncio.run(self.work.open())

    def map(self, name: str, begins_us: int = 0) -> None:
        """Map to `org`; held usage has no payer until a later start."""
        version = MappingVersion(begins_us, "org", "tenant")
        before = (MappingVersion(0, "org", "tenant", is_active=False),) if begins_us else ()
        self.customers.set(name, CustomerRecord(name, (*before, version), 0, 0))

    def forget(self, name: str) -> None:
        self.customers.set(name, None)

    def call(self, *calls: tuple[str, int], **fields: Any) -> None:
        """Send one call of a dollar for each (customer, second after noon)."""
        records: list[Any] = []
        for name, second in calls:
            call = slp(self.number, at_us=NOON + second * SECOND_US, cost="1", **fields)
            record = raw(self.ledger.position.next + len(records), call, customer=name)
            records.append(SimpleNamespace(**asdict(record), headers=()))
            self.number += 1
        asyncio.run(self.work.process(records))

    def order(self, customer: str, until_s: int) -> Any:
        """Return a record that writes off what is held for the customer."""
        order = WriteOff("a", NOON, NOON + until_s * SECOND_US)
        record = raw(self.ledger.position.next, slp(0), customer=customer)
        value = msgspec.json.encode(order)
        return SimpleNamespace(**{**asdict(record), "value": value}, headers=((CONTROL, WRITE_OFF),))

    def punctuate(self) -> None:
        """Run until no more windows are read back from disk."""
        asyncio.run(self.work.punctuate())
        while self.work._on_disk.busy:
            asyncio.run(self.work.punctuate())
        verify(self.ledger)

    def give_up(self, customer: str, match: str, until_s: int, limit: int = 4) -> list[str]:
        """Apply a write-off order until it is complete; return the ids of the windows that it removes."""
        order, offset, gone = (
            WriteOff("a", NOON, NOON + until_s * SECOND_US, match=match),
            self.ledger.position.next,
            [],
        )
        while self.ledger.position.next == offset:
            changes = write_off(self.ledger, offset, 0, customer, order, PREFIX, limit)
            gone += [receipt.transaction_id for receipt in changes.receipts]
            self.commit(changes, NOON)
        return gone

    def windows(self) -> list[Window]:
        """All windows, in memory and on disk, as a command reads them, without a bound."""
        ledger = LedgerState(Position())
        restore(ledger, snapshot_from(0, self.values), 0)
        return list(ledger.windows.values())

    def money(self) -> Counter[tuple[str, str, str]]:
        found = self.sealed.copy()
        for window in self.windows():
            found[window.customer_id, window.subscription, window.held] += int(window.cost)
        found["", "", "written off"] += int(self.ledger.position.counters.written_off.cost)
        return +found


class _LedgerOf:
    """`streams.state.ledger.Ledger` without Kafka."""

    partition = 0

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def state(self) -> LedgerState:
        return self._line.ledger

    async def open(self) -> LedgerState:
        return self._line.ledger

    async def commit(self, changes: Changes) -> None:
        self._line.commit(changes, self._line.now_us)
        self._line.enriched += [value for _, value in changes.enriched]
        for one in changes.sealed:
            event = one.event
            self._line.events.append(event)
            cents = int(Decimal(event.precise_total_amount_cents))
            self._line.sealed[event.properties["user_id"], event.external_subscription_id, ""] += cents // 100
