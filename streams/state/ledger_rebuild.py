"""Writes a lost or damaged ledger again, after it has fenced the meter's own producer (docs/adr/0043)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import msgspec
from aiokafka import TopicPartition

from schemas.errors import LedgerBroken
from schemas.ledger import JOB_PREFIX, POSITION_KEY, SEEN_PREFIX, Job, Position
from streams.core.metering.known_identities import pack_identities
from streams.core.metering.ledger_state import LedgerState, verify
from streams.core.metering.step_changes import Changes
from streams.runtime.offsets import PartitionOffsets, asking, standing_by
from streams.runtime.transactions import TransactionalWriter, Write
from streams.state.changelog import FETCHING, Snapshot, identity_key, read, records_of, restore, window_keys
from streams.state.ledger import LEDGER_BEHIND, LedgerConfig, is_behind
from streams.state.ledger_expand import in_parts

SOUND, MISSING = "sound", "ledger_missing"
_CHUNK = 4_000
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Found:
    """The present state of a ledger.

    Fields:
        state: `sound`, or the reason why the ledger cannot be used.
        raw: the offsets of its raw partition.
        keys: the keys in its changelog partition.
        next: the position of a ledger that is behind, otherwise None. Calls from there on may not have been counted.
    """

    state: str
    raw: PartitionOffsets
    keys: tuple[bytes, ...]
    next: int | None = None


async def look(place: LedgerConfig, partition: int) -> Found:
    """Read a ledger and check it; fences no worker. Raises: TopicProblem, and LedgerBroken `newer_version`."""
    async with asking(place.kafka, place.group, **FETCHING) as consumer:
        raw = await standing_by(consumer, TopicPartition(place.topics.raw, partition))
        snapshot = await read(consumer, place.topics.changelog, partition, whole=True)
    state, behind_at = _state(snapshot, raw)
    return Found(state, raw, tuple(_keys(snapshot)), behind_at)


async def write_anew(
    writer: TransactionalWriter,
    place: LedgerConfig,
    partition: int,
    old: tuple[bytes, ...],
    position: Position,
    seen: Mapping[bytes, int],
    jobs: Mapping[bytes, Job],
    hour: int,
    withdrawn: Iterable[tuple[bytes | None, bytes]] = (),
) -> None:
    """Replace a ledger. It has no position until the last transaction, so an unfinished ledger is never read as
    complete.

    Args:
        writer: a started writer with the meter's transactional id of the partition.
        old: the existing keys.
        hour: the hour under which the identities are remembered, hours since 1970 UTC.
        withdrawn: keys and values of enriched records about calls that the ledger will reject, in order of their offsets.
            The first one is written last: until then an interrupted rebuild is repeated from that call on, and the ledger
            reads all of them again.
    """
    topic, source = place.topics.changelog, TopicPartition(place.topics.raw, partition)
    await writer.commit([Write(topic, partition, POSITION_KEY, None)], source, None, place.group)
    fresh = dict(_identities(seen, hour)) | {JOB_PREFIX + identity: _encode(job) for identity, job in jobs.items()}
    writes = [Write(topic, partition, key, None) for key in old if key not in fresh and key != POSITION_KEY]
    writes += [Write(topic, partition, key, value) for key, value in fresh.items()]
    rejected = [Write(place.topics.enriched, partition, key, value) for key, value in withdrawn]
    for part in in_parts([*writes, *rejected[1:]]):
        await writer.commit(part, source, None, place.group)
    last = [Write(topic, partition, *record) for record in records_of(Changes(position))]
    await writer.commit([*rejected[:1], *last], source, position.next, place.group)


def _identities(seen: Mapping[bytes, int], hour: int) -> Iterator[tuple[bytes, bytes]]:
    """Return chunks with numbers below zero, because no chunk of a later call has such a number."""
    identities = list(seen.items())
    for number, start in enumerate(range(0, len(identities), _CHUNK), 1):
        yield identity_key(SEEN_PREFIX, hour, -number), pack_identities(dict(identities[start : start + _CHUNK]))


def _state(snapshot: Snapshot, raw: PartitionOffsets) -> tuple[str, int | None]:
    """Return `Found.state` and `Found.next`."""
    if snapshot.position is None:
        return SOUND if raw.begin == 0 and raw.committed is None else MISSING, None
    try:
        state = LedgerState(Position())
        restore(state, snapshot, 0)
        if is_behind(raw, state.position):
            return LEDGER_BEHIND, state.position.next
        verify(state)
    except LedgerBroken as broken:
        if broken.reason == "newer_version":
            raise
        return broken.reason, None
    return SOUND, None


def _keys(snapshot: Snapshot) -> Iterator[bytes]:
    yield from window_keys(snapshot)
    for block, packed in snapshot.seen.items():
        if packed is not None:
            yield identity_key(*block)
    for identity, job in snapshot.jobs.items():
        if job is not None:
            yield JOB_PREFIX + identity
