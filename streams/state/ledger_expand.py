"""Moves a ledger to a larger number of partitions: its identities are copied to the new partitions.

Windows, held usage, counters and the position stay in their ledger, because its offsets name its parts. A repeated call
may arrive on a new partition, so the new ledger must know the calls that the old one counted (docs/adr/0042).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import TopicProblem
from schemas.ledger import GROWN_VERSION, JOB_PREFIX, Position
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes
from streams.runtime.offsets import asking, standing_by
from streams.runtime.transactions import Write
from streams.state.changelog import FETCHING, Snapshot, identity_key, read, records_of, restore
from streams.state.ledger import LedgerConfig, check_complete, check_origin, owning

#: The most records, and the most bytes of their values, in one transaction.
_RECORDS, _BYTES = 5_000, 4 << 20


@dataclass(frozen=True, slots=True)
class Expanded:
    """The result for one ledger.

    Fields:
        moved: False = an earlier run had moved it.
        identities, jobs: number of chunks of identities, and of jobs, that each new partition got.
    """

    partition: int
    moved: bool
    identities: int = 0
    jobs: int = 0


async def expand(place: LedgerConfig, partition: int, partitions: int) -> Expanded:
    """Move the ledger of `partition` from `place.partitions` to `partitions` partitions.

    Copies are written first. The last transaction writes the positions of the new ledgers and the new number of
    partitions of the old one, all or nothing. Copies of an interrupted run are written again.

    Args:
        partitions: a multiple of `place.partitions`. The changelog must have the same number.

    Raises:
        TopicProblem: as `Ledger.open`; `partitions_in_use`: a new partition has a ledger of its own.
        LedgerBroken: the state cannot be read, or does not add up.
    """
    topic, old = place.topics.changelog, place.partitions
    source = TopicPartition(place.topics.raw, partition)
    async with owning(place, partition) as writer, asking(place.kafka, place.group, **FETCHING) as consumer:
        snapshot = await read(consumer, topic, partition, whole=True)
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


async def _position(
    consumer: AIOKafkaConsumer, place: LedgerConfig, source: TopicPartition, snapshot: Snapshot, partitions: int
) -> Position:
    """Return the checked position of the old ledger; a new one if no worker has opened it yet."""
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
    check_complete(source, raw, state.position)
    raw.check(source, state.position.next)
    return state.position


def _begun(parent: Position, partitions: int) -> Position:
    """Return the position of a new ledger. It has counted nothing, and has forgotten the same identities as its parent."""
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
    """Return a number below zero for each chunk of identities, by its hour and offset.

    A chunk is stored under an offset of its own partition. In another partition the same offset could later name
    another chunk, which would replace it.
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
    """Return deletions of copies of an earlier run that are outdated by now.

    Raises:
        TopicProblem: `partitions_in_use`.
    """
    there = await read(consumer, topic, child, whole=True)
    if there.position is not None:
        raise TopicProblem("partitions_in_use", f"{topic}-{child} has a ledger that was begun by a worker")
    old = [identity_key(*block) for block, packed in there.seen.items() if packed is not None]
    old += [JOB_PREFIX + identity for identity, job in there.jobs.items() if job is not None]
    return [Write(topic, child, key, None) for key in old if key not in keys]


def in_parts(writes: Iterable[Write]) -> Iterator[list[Write]]:
    """Split writes into transactions of a bounded size."""
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
