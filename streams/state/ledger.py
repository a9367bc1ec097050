"""The ledger: money state of one raw partition, changed only in Kafka transactions.

To open it means to fence the previous owner, read the state back, and check it against its topic and its own sums. A
failed transaction does not change the state; the ledger is then opened again.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import LedgerBroken, TopicProblem
from schemas.ledger import Position
from schemas.topics import TopicNames
from streams.core.metering.ledger_state import EvictedWindows, LedgerState, verify
from streams.core.metering.step_changes import Changes, apply, held_after
from streams.runtime.offsets import PartitionOffsets, asking, standing_by
from streams.runtime.transactions import Run, TransactionalWriter, Write, transactional_writer
from streams.state.changelog import FETCHING, Snapshot, read, records_of, restore, restoring
from streams.state.step_writes import runs_of, writes_of

#: Reason why a ledger is not opened: it lacks transactions that were committed.
LEDGER_BEHIND = "ledger_behind"
#: How long a closed ledger stays in memory, seconds, so that a rebalance need not read the identities of a day.
KEEP_S = 600.0


@dataclass(frozen=True, slots=True)
class LedgerConfig:
    """The Kafka resources that a ledger uses.

    Fields:
        kafka: connection options for aiokafka.
        topics: the catalogue's names with their prefix.
        topic_id: Kafka's id of the raw topic.
        partitions: number of partitions of the raw topic.
        group: the consumer group whose offsets move with the state.
        deployment: the ledger's owner.
    """

    kafka: Mapping[str, Any] = field(repr=False)
    topics: TopicNames
    topic_id: str
    partitions: int
    group: str
    deployment: str


@dataclass(slots=True)
class _Kept:
    state: LedgerState
    changelog_next: int
    closed_at: float


class LedgerCache:
    """Ledgers that this process closed recently. To reopen one, only the tail of the changelog is read.

    An entry is the state as of a changelog offset. It leaves the cache when it is taken, or `KEEP_S` after it was put.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kept: dict[int, _Kept] = {}

    def put(self, partition: int, state: LedgerState, changelog_next: int) -> None:
        """Store the state as of `changelog_next`."""
        self._kept[partition] = _Kept(state, changelog_next, self._monotonic())

    def take(self, partition: int) -> tuple[LedgerState, int] | None:
        """Remove and return the state and the offset of the tail; None if they are too old or absent."""
        now = self._monotonic()
        for old in [number for number, kept in self._kept.items() if now - kept.closed_at > KEEP_S]:
            del self._kept[old]
        kept = self._kept.pop(partition, None)
        return None if kept is None else (kept.state, kept.changelog_next)


class Ledger:
    """The state of one raw partition, and the only way to change it.

    Args:
        now_us: the wall clock, microseconds since 1970 UTC.
        cold: creates an empty file for held windows beyond the bound; None = all stay in memory.
    """

    def __init__(
        self,
        partition: int,
        place: LedgerConfig,
        cache: LedgerCache,
        now_us: Callable[[], int],
        cold: Callable[[], EvictedWindows | None] = lambda: None,
    ) -> None:
        self.partition = partition
        self._place = place
        self._cache = cache
        self._now_us = now_us
        self._cold = cold
        self._writer: TransactionalWriter | None = None
        self._changelog_next = 0
        self._input = TopicPartition(place.topics.raw, partition)
        self.state: LedgerState | None = None

    async def open(self) -> LedgerState:
        """Fence the previous owner, read the state and check it; return the state of the partition.

        Raises:
            TopicProblem: `ledger_missing`, or the raw topic is not the one from which the state was built:
                `partitions_changed`, `topic_recreated`, `other_deployment`, `offset_out_of_range`. `ledger_behind`: the
                end of the changelog was lost, or a broker with an old copy answered.
            LedgerBroken: the state cannot be read, or does not add up.
            KafkaStalled: a transaction in the changelog does not end.
        """
        place = self._place
        self._writer = writer = TransactionalWriter(place.kafka, _owners_id(place, self.partition))
        fencing = asyncio.ensure_future(writer.start())
        try:
            async with asking(place.kafka, place.group, **FETCHING) as consumer:
                await fencing  # the answers are final only after the fence
                kept = self._cache.take(self.partition)
                state, start = kept if kept is not None else (LedgerState(Position(), self._cold()), 0)
                raw = await standing_by(consumer, self._input)
                check_partitions(place, raw)
                changelog = place.topics.changelog
                snapshot = await read(consumer, changelog, self.partition, start)
                if snapshot.hidden or (kept is None and snapshot.position is None):
                    # An unfinished transaction may hide committed records, or be the beginning of this ledger. If it is of
                    # this id, the fence ends it. One of `topics expand` is waited for.
                    async with transactional_writer(place.kafka, f"{changelog}-begin-{self.partition}") as beginner:
                        snapshot = await read(consumer, changelog, self.partition, start, whole=True)
                        if kept is None and snapshot.position is None:
                            snapshot = await self._write_first_position(beginner, consumer, raw)
        finally:
            fencing.cancel()
        for _ in restoring(state, snapshot, self._now_us()):
            await asyncio.sleep(0)
        self._changelog_next = snapshot.next_offset
        self._check_topic(state, raw)
        verify(state)
        self.state = state
        return state

    async def commit(self, changes: Changes) -> None:
        """Publish the changes and their offset in one transaction, then apply them."""
        if self.state is None or self._writer is None:
            raise LedgerBroken("not_open", "a closed ledger was written to")
        place, state = self._place, self.state
        changes.position.held = held_after(state, changes)
        changelog = Run(place.topics.changelog, self.partition, records_of(changes))
        moved = changes.position.next if changes.position.next > state.position.next else None
        ends = await self._writer.commit(
            writes_of(changes, place.topics, self.partition),
            self._input,
            moved,
            place.group,
            [changelog, *runs_of(changes, place.topics, self.partition)],
        )
        apply(state, changes, self._now_us())
        self._changelog_next = ends[place.topics.changelog, self.partition]

    async def close(self) -> None:
        """Release the partition and cache the state. The state is exact as of the last known commit. A commit with an
        unknown outcome is in the tail, which is read when the ledger is reopened.
        """
        writer, state = self._writer, self.state
        self._writer, self.state = None, None
        if writer is not None:
            await writer.stop()
        if state is not None:
            self._cache.put(self.partition, state, self._changelog_next)

    def in_transaction(self) -> bool:
        """Return whether a transaction is running."""
        return self._writer is not None and self._writer.busy

    async def _write_first_position(
        self, writer: TransactionalWriter, consumer: AIOKafkaConsumer, raw: PartitionOffsets
    ) -> Snapshot:
        """Begin the ledger.

        Args:
            writer: its id is common to all deployments, whose own producers do not fence each other, so that only one
                of them begins the ledger. The changelog was read after its fence.

        Raises:
            TopicProblem: `ledger_missing`: the partition was read before; `partitions_changed`.
        """
        place, changelog = self._place, self._place.topics.changelog
        if raw.begin > 0 or raw.committed is not None:
            detail = f"{self._input.topic}-{self.partition} was read before, its ledger is gone"
            raise TopicProblem("ledger_missing", detail)
        await self._check_growth(consumer)
        own = Position(topic_id=place.topic_id, partitions=place.partitions, deployment=place.deployment)
        ((key, value),) = records_of(Changes(own))
        ends = await writer.commit([Write(changelog, self.partition, key, value)], self._input, None, place.group)
        return Snapshot(ends[changelog, self.partition], value)

    async def _check_growth(self, consumer: AIOKafkaConsumer) -> None:
        """Refuse to begin a ledger beside one that knows of fewer partitions: the calls that it counted may come again
        here, if the raw topic was grown without `meterbridge topics expand`.
        """
        first = await read(consumer, self._place.topics.changelog, 0, whole=True)
        if first.position is None:
            return
        known = LedgerState(Position())
        restore(known, Snapshot(first.next_offset, first.position), 0)
        if known.position.partitions != self._place.partitions:
            detail = f"{self._input.topic} had {known.position.partitions} partitions: `meterbridge topics expand`"
            raise TopicProblem("partitions_changed", detail)

    def _check_topic(self, state: LedgerState, raw: PartitionOffsets) -> None:
        position, tp = state.position, self._input
        check_origin(self._place, position)
        if position.partitions != raw.partitions:
            detail = f"{tp.topic} had {position.partitions} partitions, now {raw.partitions}"
            raise TopicProblem("partitions_changed", detail)
        check_complete(tp, raw, position)
        raw.check(tp, position.next)


def owning(place: LedgerConfig, partition: int) -> AbstractAsyncContextManager[TransactionalWriter]:
    """Open the meter's own producer for the partition. Its start fences a worker that has the ledger open."""
    return transactional_writer(place.kafka, _owners_id(place, partition))


def _owners_id(place: LedgerConfig, partition: int) -> str:
    return f"{place.group}-{place.topics.raw}-{partition}"


def check_partitions(place: LedgerConfig, raw: PartitionOffsets) -> None:
    """Check the number of partitions. Raises: TopicProblem: `partitions_changed`: the raw topic has another number than
    configured.
    """
    if raw.partitions != place.partitions:
        detail = f"{place.topics.raw} has {raw.partitions} partitions, {place.partitions} are configured"
        raise TopicProblem("partitions_changed", detail)


def check_origin(place: LedgerConfig, position: Position) -> None:
    """Check the position. Raises: TopicProblem: it belongs to another topic (`topic_recreated`) or to an
    `other_deployment`.
    """
    if position.topic_id != place.topic_id:
        raise TopicProblem("topic_recreated", f"{place.topics.raw} has another id than the ledger's")
    if position.deployment != place.deployment:
        raise TopicProblem("other_deployment", f"the ledger belongs to {position.deployment}")


def is_behind(raw: PartitionOffsets, position: Position) -> bool:
    """Return whether the ledger lacks transactions that were committed.

    Every transaction that moves the position writes it to the group's offset, too. So a higher offset of the group
    belongs to a transaction whose changelog records were not read (docs/adr/0059). A lower or missing one shows only
    that the group's offsets were lost or changed.

    Args:
        raw: read after the fence of the previous owner, and before the changelog.
    """
    return raw.committed is not None and raw.committed > position.next


def check_complete(tp: TopicPartition, raw: PartitionOffsets, position: Position) -> None:
    """Check the position. Raises: TopicProblem: `ledger_behind`, see `is_behind`."""
    if is_behind(raw, position):
        place = f"{tp.topic}-{tp.partition}"
        detail = f"{place}: the group's offset is {raw.committed}, the ledger's position only {position.next}"
        detail += ": `meterbridge ledger rebuild`"
        raise TopicProblem(LEDGER_BEHIND, detail)
