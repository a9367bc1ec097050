"""Replaces Kafka: records, tables and transactions in memory."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition

from connectors.billing.org_records import OrgRecords
from schemas.ledger import Position
from schemas.topics import TopicNames
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes, apply
from streams.runtime.transactions import Run, Write
from streams.state.changelog import records_of, restore
from streams.state.step_writes import runs_of, writes_of
from tests.model.lago import Clock
from tests.support.snapshots import snapshot_from

TOPICS = TopicNames.with_prefix("")


@dataclass
class Raw:
    """A record of the raw topic, with the fields that the meter reads."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


Announce = Callable[[Any, Any], Awaitable[None]]


async def silently(_before: object, _after: object) -> None:
    """Announces nothing."""


@dataclass
class Table:
    """A compacted topic, written and read; the table is never behind."""

    table: dict[str, Any] = field(default_factory=dict)
    changes: int = 0

    @property
    def version(self) -> int:
        return self.changes

    @property
    def members(self) -> int:
        return self.changes

    async def start(self) -> None:
        """Read."""

    async def wait_fresh(self, limit_s: float) -> None:
        """Fresh."""

    async def get(self, key: str) -> Any:
        """The topic's newest record of the key."""
        return self.table.get(key)

    async def change(self, key: str, make: Callable[[Any], Any], announce: Announce = silently) -> Any:
        """Like `CompactedTopicWriter`; an unchanged value is not written."""
        before = self.table.get(key)
        after = make(before)
        await announce(before, after)
        if after != before:
            self.changes += 1
            if after is None:
                del self.table[key]
            else:
                self.table[key] = after
        return after


class Orgs(Table):
    """The orgs' records, changed like in the product."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._records = object.__new__(OrgRecords)
        self._records._orgs, self._records._now_us = self, clock.us  # type: ignore[assignment]
        self._records._records = Table(self.table)  # type: ignore[assignment]

    async def change(self, key: str, make: Callable[[Any], Any], announce: Announce = silently) -> Any:
        """See `OrgRecords`."""
        before = dict(self.table)
        created = await self._records.change(key, make)
        self.changes += self.table != before
        return created


class Ledger:
    """`streams.state.ledger.Ledger` without Kafka: what a commit writes is kept, and the ledger is verified after each."""

    partition = 0

    def __init__(self, clock: Clock, topics: dict[str, list[Any]], changelog: dict[bytes, bytes | None]) -> None:
        self._clock = clock
        self._topics = topics
        self._changelog = changelog
        self.state = LedgerState(Position(topic_id="t", partitions=1, deployment="d"))

    async def open(self) -> LedgerState:
        """Read the changelog to its end."""
        restore(self.state, snapshot_from(0, self._changelog), self._clock.us())
        verify(self.state)
        return self.state

    async def commit(self, changes: Changes) -> None:
        """Apply all changes, as in one transaction."""
        self._changelog.update(records_of(changes))
        for write in writes_of(changes, TOPICS, self.partition):
            self._topics.setdefault(write.topic, []).append(write)
        for run in runs_of(changes, TOPICS, self.partition):
            self._topics.setdefault(run.topic, []).extend(run.records)
        apply(self.state, changes, self._clock.us())
        verify(self.state)

    async def close(self) -> None:
        """Gone."""

    def in_transaction(self) -> bool:
        """Return False: there is never a transaction."""
        return False


class Silent:
    """Ignores every metric."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None


class Writer:
    """`streams.runtime.transactions.TransactionalWriter` of the sink."""

    busy = False

    def __init__(self, topics: dict[str, list[Any]]) -> None:
        self._topics = topics

    async def commit(
        self, writes: Iterable[Write], tp: TopicPartition, offset: int | None, group: str, runs: Iterable[Run] = ()
    ) -> None:
        """Apply all changes."""
        for write in writes:
            self._topics.setdefault(write.topic, []).append(write)
