"""Moves a ledger to a larger number of partitions: what it remembers of identities is copied to the new partitions.

Windows, held usage, counters and the position stay in the ledger that has them, because its offsets name its parts. A
call that comes again may come by a new partition, so that one has to know what the old one counted (docs/adr/0042).
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import TopicProblem
from schemas.ledger import GROWN_VERSION, JOB_PREFIX, Position
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes
from streams.runtime.offsets import asking, standing_by
from streams.runtime.transactions import TransactionalWriter, Write
from streams.state.changelog import FETCHING, Snapshot, identity_key, read, records_of, restore
from streams.state.ledger import LedgerConfig, check_origin

#: The most records, and bytes of their values, in one transaction.
_RECORDS, _BYTES = 5_000, 4 << 20


@dataclass(frozen=True, slots=True)
class Expanded:
    """What was done to a ledger.

    Fields:
        moved: False = an earlier run had done it.
        identities, jobs: number of chunks of identities and of jobs that each new partition has got.
    """

    partition: int
    moved: bool
    identities: int = 0
    jobs: int = 0


async def expand(place: LedgerConfig, partition: int, partitions: int) -> Expanded:
    """Move the ledger of `partition` from `place.partitions` to `partitions` partitions.

    Copies are written first. The last transaction gives the new ledgers their positions and the old one its new number
    of partitions: it is done as a whole or not at all. What an earlier run left behind is written again.

    Args:
        partitions: a multiple of `place.partitions`; the changelog has as many partitions.

    Raises:
        TopicProblem: as `Ledger.open`; `partitions_in_use`: a new partition has a ledger of its own.
        LedgerBroken: the state cannot be read, or does not add up.
    """
    topic, old = place.topics.changelog, place.partitions
    source = TopicPartition(place.topics.raw, partition)
    async with owning(place, partition) as writer, asking(place.kafka, place.group, **FETCHING) as consumer:
        snapshot = await read(consumer, topic, partition)
        position = await _position(consumer, place, source, snapshot, partitions)
        if position.partitions == partitions:
            return Expanded(partition, moved=False)
        children = range(partition + old, partitions, old)
        blocks = _numbered(snapshot)
        for child in children:
            copies = [*_copies(topic, child, snapshot, blocks)]
            left = await _left_behind(consumer, topic, child, {write.key for write in copies})
            for part in in_parts([*left, *copies]):
                await writer.commit(part, source, None, place.group)
        begun = _begun(position, partitions)
        position.grown_from = position.grown_from or old
        position.partitions, position.v = partitions, GROWN_VERSION
        ledgers = {partition: position, **dict.fromkeys(children, begun)}
        last = [Write(topic, number, *_record(one)) for number, one in ledgers.items()]
        await writer.commit(last, source, None, place.group)
        return Expanded(partition, moved=True, identities=len(blocks), jobs=len(snapshot.jobs))


@asynccontextmanager
async def owning(place: LedgerConfig, partition: int) -> AsyncIterator[TransactionalWriter]:
    """The meter's own producer for the partition: starting it fences a worker that has the ledger open."""
    writer = TransactionalWriter(place.kafka, f"{place.group}-{place.topics.raw}-{partition}")
    try:
        await writer.start()
        yield writer
    finally:
        await writer.stop()


async def _position(
    consumer: AIOKafkaConsumer, place: LedgerConfig, source: TopicPartition, snapshot: Snapshot, partitions: int
) -> Position:
    """The checked position of the old ledger; a fresh one where no worker has opened it yet."""
    raw = await standing_by(consumer, source)
    if raw.partitions not in (place.partitions, partitions):
        raise TopicProblem("partitions_changed", f"{source.topic} has {raw.partitions} partitions")
    if snapshot.position is None:
        if raw.begin > 0 or raw.committed is not None:
            raise TopicProblem("ledger_missing", f"{source.topic}-{source.partition} was read before")
        return Position(topic_id=place.topic_id, partitions=place.partitions, deployment=place.deployment)
    state = LedgerState(Position())
    restore(state, snapshot, 0)
    check_origin(place, state.position)
    verify(state)
    if state.position.partitions not in (place.partitions, partitions):
        detail = f"the ledger of {source.topic}-{source.partition} has {state.position.partitions} partitions"
        raise TopicProblem("partitions_changed", detail)
    raw.check(source, state.position.next)
    return state.position


def _begun(parent: Position, partitions: int) -> Position:
    """The position of a new ledger: it has counted nothing, and has forgotten what its parent has forgotten."""
    return Position(
        clock_ms=parent.clock_ms,
        topic_id=parent.topic_id,
        partitions=partitions,
        deployment=parent.deployment,
        dropped_hour=parent.dropped_hour,
        v=GROWN_VERSION,
        forgot_us=parent.forgot_us,
    )


def _numbered(snapshot: Snapshot) -> dict[tuple[int, int], int]:
    """A number below zero for each chunk of identities, by its hour and offset.

    A chunk is stored under an offset of its own partition. In another one that offset may come to name another chunk,
    which would replace it.
    """
    chunks = sorted({(hour, first) for (_, hour, first), packed in snapshot.seen.items() if packed is not None})
    return {chunk: -number for number, chunk in enumerate(chunks, 1)}


def _copies(topic: str, child: int, snapshot: Snapshot, numbers: dict[tuple[int, int], int]) -> Iterator[Write]:
    for (prefix, hour, first), packed in snapshot.seen.items():
        if packed is not None:
            yield Write(topic, child, identity_key(prefix, hour, numbers[hour, first]), packed)
    for identity, job in snapshot.jobs.items():
        if job is not None:
            yield Write(topic, child, JOB_PREFIX + identity, job)


async def _left_behind(consumer: AIOKafkaConsumer, topic: str, child: int, keys: set[bytes | None]) -> list[Write]:
    """Deletes what an earlier run copied and what is known otherwise by now.

    Raises:
        TopicProblem: `partitions_in_use`.
    """
    there = await read(consumer, topic, child)
    if there.position is not None:
        raise TopicProblem("partitions_in_use", f"{topic}-{child} has a ledger that was begun by a worker")
    old = [identity_key(*block) for block, packed in there.seen.items() if packed is not None]
    old += [JOB_PREFIX + identity for identity, job in there.jobs.items() if job is not None]
    return [Write(topic, child, key, None) for key in old if key not in keys]


def in_parts(writes: Iterable[Write]) -> Iterator[list[Write]]:
    """Writes for transactions of a bounded size."""
    part: list[Write] = []
    size = 0
    for write in writes:
        part.append(write)
        size += len(write.value or b"")
        if len(part) >= _RECORDS or size >= _BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _record(position: Position) -> tuple[bytes, bytes | None]:
    (record,) = records_of(Changes(msgspec.structs.replace(position)))
    return record
