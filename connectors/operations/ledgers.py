"""Reads the ledgers from their changelog, beside the workers: all that is committed."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal

from connectors.config.deployment import Deployment
from connectors.kafka.client_config import aiokafka_config
from schemas.ledger import Position, Window
from schemas.money import ZERO, add
from streams.core.metering.ledger_state import LedgerState
from streams.runtime.plain_consumer import reading
from streams.state.changelog import FETCHING, Snapshot, read, restore, windows_of


async def books_of(
    deployment: Deployment, opened: Callable[[int], None] = lambda _partition: None
) -> dict[int, LedgerState]:
    """The ledger of each raw partition, as of its last commit; `opened` is called with each partition that was read.

    Raises: aiokafka's errors if the broker does not answer.
    """
    found = {}
    async for partition, image in _images(deployment):
        found[partition] = LedgerState(Position())
        restore(found[partition], image, 0)
        opened(partition)
    return found


async def held_of(deployment: Deployment, opened: Callable[[int], None] = lambda _partition: None) -> list["Held"]:
    """The held usage of all ledgers by customer and reason, the highest amount first. One window at a time is in memory.

    Raises: aiokafka's errors if the broker does not answer.
    """
    found: dict[tuple[str, str, str], Held] = {}
    async for partition, image in _images(deployment):
        restore(
            LedgerState(Position()), Snapshot(image.next_offset, image.position), 0
        )  # raises if this release cannot read it
        for window in windows_of(image):
            if window.held:
                key = (window.customer_id, window.id_kind, window.held)
                found.setdefault(key, Held(*key)).count(window)
        opened(partition)
    return sorted(found.values(), key=lambda held: (-held.usd, held.customer))


async def _images(deployment: Deployment) -> AsyncIterator[tuple[int, Snapshot]]:
    kafka = aiokafka_config(deployment.kafka)
    for partition in range(deployment.partitions):
        async with reading(**kafka, isolation_level="read_committed", **FETCHING) as consumer:
            image = await read(consumer, deployment.topics.changelog, partition)
        yield partition, image


@dataclass(slots=True)
class Held:
    """Usage of one customer that is held for one reason.

    Fields:
        first_us, last_us: the first and the last end of its calls, microseconds since 1970 UTC.
    """

    customer: str
    id_kind: str
    reason: str
    windows: int = 0
    calls: int = 0
    usd: Decimal = ZERO
    first_us: int = 0
    last_us: int = 0

    def count(self, window: Window) -> None:
        """Add one held window."""
        self.first_us = min(self.first_us, window.min_end_us) if self.windows else window.min_end_us
        self.last_us = max(self.last_us, window.max_end_us)
        self.windows += 1
        self.calls += window.count
        self.usd = add(self.usd, window.cost)
