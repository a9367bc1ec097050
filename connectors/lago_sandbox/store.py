"""The two event stores. They decide the effect of a repeated transaction_id, and which copies are billed.

Source: unique index `index_unique_transaction_id` (`db/structure.sql`), `bulk_insert_events` in
`app/services/events/create_batch_service.rb`, `DEDUP_KEY_COLUMNS` in `app/services/events/stores/clickhouse_store.rb`
of lago-api.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

from connectors.lago_sandbox.coercion import Unstorable
from connectors.lago_sandbox.stored_event import Event
from connectors.lago_sandbox.totals import InTime, SandboxTotals, Windows

StoreKind = Literal["postgres", "clickhouse"]

_MAX_YEAR_US = 9_224_318_016_000 * 1_000_000  # the year 294277, where a Postgres timestamp ends
_MAX_CENTS_DIGITS = 25  # before the point, of decimal(40,15)
_MS = 1000


class EventStore(Protocol):
    """The common interface of both stores. `accept` stores all of a batch or nothing."""

    kind: StoreKind
    unit_us: int
    log: "EventLog"
    duplicates: int

    def accept(self, events: Sequence[Event]) -> list[int]:
        """Store a batch; return the indexes for which it is refused, empty when it is stored.

        Raises:
            Unstorable: the insert fails, so Lago answers 500.
        """


class EventLog:
    """Every accepted copy, by transaction_id in order of arrival, and by subscription."""

    def __init__(self, windows: Callable[[str], Windows], in_time: InTime) -> None:
        self.totals = SandboxTotals(windows, in_time, self.of_subscription)
        self._by_id: dict[str, Event | list[Event]] = {}
        self._by_subscription: dict[str | None, list[Event]] = {}

    def add(self, event: Event) -> None:
        """Append one copy."""
        known = self._by_id.setdefault(event.transaction_id, event)
        if known is not event:
            if isinstance(known, list):
                known.append(event)
            else:
                self._by_id[event.transaction_id] = [known, event]
        self._by_subscription.setdefault(event.subscription, []).append(event)
        self.totals.add(event)

    def supersede(self, event: Event) -> None:
        """Hide a copy from billing."""
        event.superseded = True
        self.totals.remove(event)

    def copies(self, transaction_id: str) -> Sequence[Event]:
        """Return every copy with this id, oldest first."""
        known = self._by_id.get(transaction_id, ())
        return (known,) if isinstance(known, Event) else known

    def of_subscription(self, external_id: str | None) -> list[Event]:
        """Return every copy sent for one subscription, superseded ones included."""
        return self._by_subscription.get(external_id, [])

    def __iter__(self) -> Iterator[Event]:
        for known in self._by_id.values():
            if isinstance(known, Event):
                yield known
            else:
                yield from known


class PostgresStore:
    """Unique by subscription and transaction_id: the first copy stays, a repeat is refused."""

    kind: StoreKind = "postgres"
    unit_us = 1

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.duplicates = 0

    def accept(self, events: Sequence[Event]) -> list[int]:
        """Do one insert that skips conflicts; if a row was skipped, roll everything back.

        The transaction_id alone decides which index is refused: an id on two subscriptions in one batch is refused
        although the unique index allows it.

        Raises:
            Unstorable: a column refuses a value; nothing is stored.
        """
        if any(map(_unstorable, events)):
            raise Unstorable
        keys: set[tuple[str, str]] = set()
        inserted: set[str] = set()
        for event in events:
            if event.subscription is not None:  # NULLs are distinct: no key, no conflict
                key = (event.subscription, event.transaction_id)
                if key in keys or any(c.subscription == event.subscription for c in self.log.copies(key[1])):
                    continue
                keys.add(key)
            inserted.add(event.transaction_id)
        refused = []
        for index, event in enumerate(events):
            if event.transaction_id in inserted:
                inserted.discard(event.transaction_id)
            else:
                refused.append(index)
        if refused:
            self.duplicates += len(refused)
            return refused
        for event in events:
            self.log.add(event)
        return []


class ClickhouseStore:
    """Accepts every copy; with `dedup` billing sees only the last copy of a key."""

    kind: StoreKind = "clickhouse"
    unit_us = _MS

    def __init__(self, log: EventLog, *, dedup: bool) -> None:
        self.log = log
        self.duplicates = 0
        self._dedup = dedup

    def accept(self, events: Sequence[Event]) -> list[int]:
        """Store everything; the key is code, subscription, transaction_id and timestamp."""
        for event in events:
            copies = [c for c in self.log.copies(event.transaction_id) if c.subscription == event.subscription]
            self.duplicates += bool(copies)
            if self._dedup:
                for copy in copies:
                    if not copy.superseded and copy.code == event.code and copy.ts_us == event.ts_us:
                        self.log.supersede(copy)
            self.log.add(event)
        return []


def _unstorable(event: Event) -> bool:
    """Return whether it has a NUL byte, or a year or an amount that no column of Postgres can hold."""
    return (
        any("\0" in text for text in (event.transaction_id, event.subscription or "", event.code))
        or b"\\u0000" in event.properties.replace(b"\\\\", b"")
        or abs(event.ts_us) >= _MAX_YEAR_US
        or (event.cents is not None and len(event.cents.lstrip("-").partition(".")[0]) > _MAX_CENTS_DIGITS)
    )
