"""Writes the ledger's state to its changelog, and reads it back.

Keys are `position`, `w` + first offset, `i` and `u` + hour + first offset (big-endian, 8 bytes each), and `j` +
identity. Values are MessagePack; identities are packed with their tags (streams/core/metering/known_identities.py). A
record without a value deletes its key. Releases before version 3 wrote whole identities under `s` + hour + first
offset.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.decoding import DAMAGE, decoder
from schemas.errors import LedgerBroken
from schemas.ledger import (
    JOB_PREFIX,
    LEDGER_VERSION,
    POSITION_KEY,
    SEEN_PREFIX,
    SETTLED_PREFIX,
    TAGGED_VERSION,
    UNTOLD_PREFIX,
    WINDOW_PREFIX,
    Job,
    Position,
    Window,
    version_of,
)
from schemas.reasons import UNREADABLE_LEDGER
from streams.core.metering.identity import IDENTITY_BYTES
from streams.core.metering.known_identities import untold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import Changes
from streams.runtime.transactions import STALLED_S, KafkaStalled
from streams.runtime.unreadable import note
from streams.state.overflow_windows import OlderWindows

_encode = msgspec.msgpack.Encoder().encode
_decode_position = decoder(Position, packed=True)
_decode_window = decoder(Window, packed=True)
_decode_job = decoder(Job, packed=True)
_FETCH_BYTES = 8 << 20
#: How often a reader at the end of the changelog looks for more, milliseconds.
_LOOK_MS = 10
#: Options of a consumer that reads a changelog: large fetches, and no pause at its end.
FETCHING: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    "max_partition_fetch_bytes": _FETCH_BYTES,
    "fetch_max_bytes": 4 * _FETCH_BYTES,
    "fetch_max_wait_ms": _LOOK_MS,
    "retry_backoff_ms": 10,  # backoff of the first metadata request, for a topic that the client does not know yet
}
#: Number of held windows that are moved to disk together, and of windows that are restored without a pause.
_ASIDE = 1_000
#: Number of undecoded windows in memory while a changelog is read; each takes 0.5 kB.
READ_IN_MEMORY = 20_000
_WINDOW, _JOB = WINDOW_PREFIX[0], JOB_PREFIX[0]
_IDENTITIES = frozenset((UNTOLD_PREFIX[0], SEEN_PREFIX[0], SETTLED_PREFIX[0]))


@dataclass(slots=True)
class Snapshot:
    """The latest value of each key, undecoded; `next_offset` is where the tail begins.

    Fields:
        windows, older: by first offset. `older` has the windows beyond the bound; `windows` overrides it.
        seen: chunks of identities by prefix, hour and first offset.
        complete: whether it was read from the beginning of the changelog, so that deleted windows need not be kept.
        hidden: whether records follow that may be committed and are not visible yet, see `read`.
    """

    next_offset: int
    position: bytes | None = None
    windows: dict[int, bytes | None] = field(default_factory=dict)
    seen: dict[tuple[bytes, int, int], bytes | None] = field(default_factory=dict)
    jobs: dict[bytes, bytes | None] = field(default_factory=dict)
    older: OlderWindows | None = None
    complete: bool = False
    hidden: bool = False

    def take(self, latest: Mapping[bytes, bytes | None]) -> None:
        """Add the last value of each key, from records that follow the earlier ones."""
        self.position = latest.get(POSITION_KEY, self.position)
        for key, value in latest.items():
            if not _is_ours(key):
                continue
            kind = key[0]
            if kind == _WINDOW:
                self.windows[int.from_bytes(key[1:9], "big")] = value
            elif kind in _IDENTITIES:
                hour, first = struct.unpack(">qq", key[1:17])
                self.seen[key[:1], hour, first] = value
            elif kind == _JOB:
                self.jobs[key[1:]] = value

    def relieve(self, most: int) -> int:
        """Move windows to disk if more than `most` are in memory; return the bound for the next call."""
        if len(self.windows) > most:
            if self.complete and self.older is None:
                self.windows = {first: value for first, value in self.windows.items() if value is not None}
                if len(self.windows) <= most // 2:
                    return most
            self.older = self.older or OlderWindows(complete=self.complete)
            if not self.older.put(self.windows):
                return 2 * most
            self.windows = {}
        return most

    def all_windows(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the first offset and the value of each window."""
        for first, value in () if self.older is None else self.older.items():
            if first not in self.windows:
                yield first, value
        yield from self.windows.items()


def records_of(changes: Changes) -> Iterator[tuple[bytes, bytes | None]]:
    """Return the changelog records of a step. The position is the last one; its version is the lowest that can
    represent all values.
    """
    for first, window in changes.windows.items():
        if window is not None:
            changes.position.v = max(changes.position.v, version_of(window))
        yield WINDOW_PREFIX + struct.pack(">q", first), None if window is None else _encode(window)
    if changes.seen or changes.settled or changes.jobs:
        changes.position.v = max(changes.position.v, TAGGED_VERSION)  # an older release would not recognise them
    block = struct.pack(">qq", changes.seen_hour, changes.seen_first)
    if changes.seen:
        yield SEEN_PREFIX + block, changes.seen
    if changes.settled:
        yield SETTLED_PREFIX + block, changes.settled
    for identity, job in changes.jobs.items():
        yield JOB_PREFIX + identity, None if job is None else _encode(job)
    for hour, first, prefixes in changes.dropped:
        for prefix in prefixes:
            yield identity_key(bytes((prefix,)), hour, first), None
    yield POSITION_KEY, _encode(changes.position)


def identity_key(prefix: bytes, hour: int, first: int) -> bytes:
    """Return the key of a chunk of identities; `first` is below 0 in a chunk that was copied from another ledger."""
    return prefix + struct.pack(">qq", hour, first)


async def read(
    consumer: AIOKafkaConsumer, topic: str, partition: int, from_offset: int = 0, *, whole: bool = False
) -> Snapshot:
    """Read the changelog partition from `from_offset` to its end, committed records only.

    Call it after the previous owner is fenced: only then is the end final. An unfinished transaction of another producer
    hides all later records, also committed ones (Kafka's last stable offset). A transaction whose commit was answered
    is unfinished until its marker is written.

    Args:
        consumer: a consumer made with `FETCHING`.
        whole: wait for such transactions; Kafka aborts an abandoned one after its timeout.

    Raises:
        KafkaStalled: nothing could be read for `STALLED_S`. Otherwise aiokafka's errors.
    """
    tp = TopicPartition(topic, partition)
    clock = asyncio.get_running_loop().time
    ends, begins = await asyncio.gather(consumer.end_offsets([tp]), consumer.beginning_offsets([tp]))
    end, start = ends[tp], max(from_offset, begins[tp])
    snapshot, at, most = Snapshot(start, complete=from_offset == 0), start, READ_IN_MEMORY
    consumer.assign([tp])
    consumer.seek(tp, start)
    high, moved_s = None, clock()
    while high is None or at < (max(end, high) if whole else end):
        for records in (await consumer.getmany(timeout_ms=_LOOK_MS, max_records=20_000)).values():
            snapshot.take({record.key: record.value for record in records})
            most = snapshot.relieve(most)
        before, at = at, await consumer.position(tp)
        high = consumer.highwater(tp) if high is None else high
        if at != before:
            moved_s = clock()
        elif clock() - moved_s > STALLED_S:
            raise KafkaStalled(f"{topic}-{partition} could not be read beyond {at} for {STALLED_S:.0f} s")
    snapshot.next_offset, snapshot.hidden = at, at < high
    return snapshot


def restore(ledger: LedgerState, snapshot: Snapshot, now_us: int) -> None:
    """Apply a whole snapshot, or the tail, to the state. Raises: as `restoring`."""
    deque(restoring(ledger, snapshot, now_us), 0)


def restoring(ledger: LedgerState, snapshot: Snapshot, now_us: int) -> Iterator[None]:
    """Like `restore`, but in steps, between which other tasks may run.

    Raises:
        LedgerBroken: `newer_version`: this release would drop values that it does not know; `unreadable_ledger`: no
            release can have written the position. An unreadable window is left out. If it was a window of this ledger,
            the sums differ.
    """
    try:
        yield from _restoring(ledger, snapshot, now_us)
    except DAMAGE as damage:
        raise LedgerBroken(UNREADABLE_LEDGER, f"meter.changelog: {type(damage).__name__}") from None


def window_keys(snapshot: Snapshot) -> Iterator[bytes]:
    """Yield the keys of the windows that are there."""
    for first, value in snapshot.all_windows():
        if value is not None:
            yield WINDOW_PREFIX + first.to_bytes(8, "big")


def windows_of(snapshot: Snapshot) -> Iterator[Window]:
    """Yield the readable windows one after the other, without a ledger state."""
    for first, value in snapshot.all_windows():
        if value is not None and (window := _window(first, value)) is not None:
            yield window


def _restoring(ledger: LedgerState, snapshot: Snapshot, now_us: int) -> Iterator[None]:
    if snapshot.position is not None:
        position = _decode_position(snapshot.position)
        if position.v > LEDGER_VERSION:
            raise LedgerBroken("newer_version", f"{position.v}, this worker reads up to {LEDGER_VERSION}")
        ledger.forget_before(position.dropped_hour)
        ledger.position = position
    aside: list[Window] = []
    for number, (first, value) in enumerate(snapshot.all_windows()):
        if number % _ASIDE == 0:
            ledger.store(aside, now_us)
            aside = []
            yield
        if not snapshot.complete and ledger.warm_part(first):
            ledger.remove(first)
        window = None if value is None else _window(first, value)
        if window is None:
            continue
        if window.held and window.metered is None and ledger.full():
            aside.append(window)
        else:
            ledger.put(window, now_us)
    ledger.store(aside, now_us)
    _restore_seen(ledger, snapshot)
    for identity, value in snapshot.jobs.items():
        ledger.put_job(identity, None if value is None else _job(value))
    if snapshot.jobs:
        ledger.jobs = dict(sorted(ledger.jobs.items(), key=lambda one: one[1].hour))


def _window(first: int, value: bytes) -> Window | None:
    """Return the window; None, with a note, if the value is no window or does not fit its key."""
    try:
        window = _decode_window(value)
        if window.first == first:
            return window
    except msgspec.DecodeError:
        pass
    note("ledger", -1, first, "window")
    return None


def _job(value: bytes) -> Job | None:
    try:
        return _decode_job(value)
    except msgspec.DecodeError:
        note("ledger", -1, -1, "job")
        return None


def _restore_seen(ledger: LedgerState, snapshot: Snapshot) -> None:
    """Restore chunks of identities in any order. A settled identity overrides the counted one in tag and hour."""
    oldest = ledger.position.dropped_hour
    new: dict[int, list[bytes]] = {}
    settled: list[tuple[int, bytes]] = []
    for (prefix, hour, first), packed in snapshot.seen.items():
        blocks = ledger.seen_blocks.setdefault(hour, {})
        there = blocks.get(first, b"")
        if packed is None:
            blocks[first] = there.replace(prefix, b"")
        elif len(packed) % IDENTITY_BYTES:
            note("ledger", -1, first, "identities")
        elif prefix not in there:
            blocks[first] = there + prefix
            if hour < oldest:
                continue
            if prefix == SETTLED_PREFIX:
                settled.append((hour, packed))
            else:
                new.setdefault(hour, []).append(untold(packed) if prefix == UNTOLD_PREFIX else packed)
    ledger.seen.expect(sum(len(packed) for blocks in new.values() for packed in blocks) // IDENTITY_BYTES)
    for hour, packed_blocks in new.items():
        ledger.seen.add(b"".join(packed_blocks), hour)
    for hour, packed in sorted(settled):
        ledger.seen.put(packed, hour)
    for hour, blocks in list(ledger.seen_blocks.items()):
        ledger.seen_blocks[hour] = {first: prefixes for first, prefixes in blocks.items() if prefixes}
        if not ledger.seen_blocks[hour]:
            del ledger.seen_blocks[hour]


def _is_ours(key: bytes | None) -> bool:
    """Return whether this release could have written the key; other keys are ignored, as are the kinds of a later
    release.
    """
    if not key:
        return False
    if key[0] == _WINDOW:
        return len(key) == 1 + 8
    if key[0] == _JOB:
        return len(key) == 1 + IDENTITY_BYTES
    return key[0] not in _IDENTITIES or len(key) == 1 + 16
