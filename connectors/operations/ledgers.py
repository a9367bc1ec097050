"""Reads the committed state of the ledgers from their changelog, while the workers run."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from decimal import Decimal

from connectors.config.deployment import Deployment
from connectors.kafka.client_config import aiokafka_config
from connectors.kafka.growth import check_ledger_topics
from schemas.ledger import Position, Window
from schemas.money import ZERO, add
from streams.core.metering.ledger_state import LedgerState
from streams.runtime.plain_consumer import reading
from streams.state.changelog import FETCHING, Snapshot, read, restore, windows_of


async def ledgers_of(
    deployment: Deployment, opened: Callable[[int], None] = lambda _partition: None
) -> dict[int, LedgerState]:
    """Yield the ledger of each raw partition at its last commit; `opened` is called with each partition that was read.

    Raises:
        TopicProblem: a topic of the ledgers is missing, or has another number of partitions.
        Unavailable, or aiokafka's errors: the broker does not answer.
    """
    ledgers = {}
    async for partition, snapshot in _snapshots(deployment):
        ledgers[partition] = LedgerState(Position())
        restore(ledgers[partition], snapshot, 0)
        opened(partition)
    return ledgers


async def held_of(
    deployment: Deployment, opened: Callable[[int], None] = lambda _partition: None, until_us: int | None = None
) -> list["Held"]:
    """Sum up the held usage of all ledgers by customer and reason, the highest amount first. One window at a time is in
    memory.

    Args:
        until_us: only windows whose last call ended at or before this moment, as a write-off takes them, microseconds
            since 1970 UTC; None = all.

    Raises:
        TopicProblem: a topic of the ledgers is missing, or has another number of partitions.
        Unavailable, or aiokafka's errors: the broker does not answer.
    """
    held_by_key: dict[tuple[str, str, str], Held] = {}
    async for partition, snapshot in _snapshots(deployment):
        restore(
            LedgerState(Position()), Snapshot(snapshot.next_offset, snapshot.position), 0
        )  # raises if this release cannot read the ledger
        for window in windows_of(snapshot):
            if window.held and (until_us is None or window.max_end_us <= until_us):
                key = (window.customer_id, window.id_kind, window.held)
                held_by_key.setdefault(key, Held(*key)).count(window, partition)
        opened(partition)
    return sorted(held_by_key.values(), key=lambda held: (-held.usd, held.customer))


async def _snapshots(deployment: Deployment) -> AsyncIterator[tuple[int, Snapshot]]:
    await asyncio.to_thread(check_ledger_topics, deployment.kafka, deployment.topics, deployment.partitions)
    kafka = aiokafka_config(deployment.kafka)
    for partition in range(deployment.partitions):
        async with reading(**kafka, isolation_level="read_committed", **FETCHING) as consumer:
            snapshot = await read(consumer, deployment.topics.changelog, partition)
        yield partition, snapshot


@dataclass(slots=True)
class Held:
    """Usage of one customer that is held for one reason.

    Fields:
        first_us, last_us: the earliest and the latest end of its calls, microseconds since 1970 UTC.
        partitions: raw partitions whose ledgers hold it. There are several if the topic has grown meanwhile.
    """

    customer: str
    id_kind: str
    reason: str
    windows: int = 0
    calls: int = 0
    usd: Decimal = ZERO
    first_us: int = 0
    last_us: int = 0
    partitions: set[int] = field(default_factory=set)

    def count(self, window: Window, partition: int) -> None:
        """Add one held window of the ledger of `partition`."""
        self.partitions.add(partition)
        self.first_us = min(self.first_us, window.min_end_us) if self.windows else window.min_end_us
        self.last_us = max(self.last_us, window.max_end_us)
        self.windows += 1
        self.calls += window.count
        self.usd = add(self.usd, window.cost)
