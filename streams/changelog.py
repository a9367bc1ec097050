"""The ledger's state in its changelog: how it is written, and read back to its end.

Keys are `position`, `w` + first offset, `s` + hour + first offset (big-endian, 8 bytes each);
values MessagePack, identities packed. A record without a value deletes its key.
"""

import asyncio
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import LedgerBroken
from schemas.ledger import (
    LEDGER_VERSION,
    PLAIN_VERSION,
    POSITION_KEY,
    SEEN_PREFIX,
    WINDOW_PREFIX,
    Position,
    Window,
    version_of,
)
from streams.core.books import Books
from streams.core.changes import Changes
from streams.core.identity import IDENTITY_BYTES

_encode = msgspec.msgpack.Encoder().encode
_decode_position = msgspec.msgpack.Decoder(Position).decode
_decode_window = msgspec.msgpack.Decoder(Window).decode
_FETCH_BYTES = 8 << 20
#: How a consumer fetches that reads a changelog: much at once, and without a pause at its end.
FETCHING: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    "max_partition_fetch_bytes": _FETCH_BYTES,
    "fetch_max_bytes": 4 * _FETCH_BYTES,
    "fetch_max_wait_ms": 50,
    "retry_backoff_ms": 10,  # of the first question about a topic, which the client does not know yet
}
_WINDOW, _SEEN = WINDOW_PREFIX[0], SEEN_PREFIX[0]


@dataclass(slots=True)
class Image:
    """What was read: latest value of each key, undecoded; `next_offset` is where the tail begins."""

    next_offset: int
    position: bytes | None = None
    windows: dict[int, bytes | None] = field(default_factory=dict)
    seen: dict[tuple[int, int], bytes | None] = field(default_factory=dict)


def records_of(changes: Changes) -> Iterator[tuple[bytes, bytes | None]]:
    """The changelog records of a step; the position is the last, its version what the windows ask for."""
    for first, window in changes.windows.items():
        if window is not None:
            changes.position.v = max(changes.position.v, version_of(window))
        yield WINDOW_PREFIX + struct.pack(">q", first), None if window is None else _encode(window)
    if changes.seen:
        yield SEEN_PREFIX + struct.pack(">qq", changes.seen_hour, changes.seen_first), changes.seen
    for hour, first in changes.dropped:
        yield SEEN_PREFIX + struct.pack(">qq", hour, first), None
    yield POSITION_KEY, _encode(changes.position)


async def read(consumer: AIOKafkaConsumer, topic: str, partition: int, from_offset: int = 0) -> Image:
    """Read the changelog partition from `from_offset` to its end, committed records only.

    To be called after the previous owner is fenced: only then is the end final.

    Args:
        consumer: without an assignment, made with `FETCHING`.
    """
    tp = TopicPartition(topic, partition)
    ends, begins = await asyncio.gather(consumer.end_offsets([tp]), consumer.beginning_offsets([tp]))
    end, start = ends[tp], max(from_offset, begins[tp])
    latest: dict[bytes, bytes | None] = {}
    at = start
    if start < end:
        consumer.assign([tp])
        consumer.seek(tp, start)
    while at < end:
        for records in (await consumer.getmany(timeout_ms=200, max_records=20_000)).values():
            latest.update([(record.key, record.value) for record in records])
        at = await consumer.position(tp)
    return _image(at, latest)


def restore(books: Books, image: Image, now_us: int) -> None:
    """Bring the books up to the image: all of it, or the tail that was read since.

    Raises:
        LedgerBroken: `later_version`: to read on would drop what this release does not know.
    """
    if image.position is not None:
        before = books.position.dropped_hour
        books.position = _decode_position(image.position)
        if books.position.v > LEDGER_VERSION:
            raise LedgerBroken("later_version", f"{books.position.v}, this worker reads up to {LEDGER_VERSION}")
        if books.position.dropped_hour > before:
            books.seen.drop_before(books.position.dropped_hour, before)
    for first, value in image.windows.items():
        if first in books.windows:
            books.remove(first)
        if value is not None:
            books.put(_decode_window(value), now_us)
    books.position.v = _version(books)
    oldest = books.position.dropped_hour
    new: dict[int, list[bytes]] = {}
    for (hour, first), packed in image.seen.items():
        chunks = books.seen_chunks.setdefault(hour, {})
        if packed is None:
            chunks.pop(first, None)
        elif first not in chunks:
            chunks[first] = None
            if hour >= oldest:
                new.setdefault(hour, []).append(packed)
    books.seen.expect(sum(len(packed) for chunks in new.values() for packed in chunks) // IDENTITY_BYTES)
    for hour, packed_chunks in new.items():
        books.seen.add(b"".join(packed_chunks), hour)
    for hour in [hour for hour, chunks in books.seen_chunks.items() if not chunks]:
        del books.seen_chunks[hour]


def _version(books: Books) -> int:
    """The lowest version that says all of the books: a release before this one may then read them again."""
    if books.position.forgot_us:
        return LEDGER_VERSION
    return max(map(version_of, books.windows.values()), default=PLAIN_VERSION)


def _image(next_offset: int, latest: Mapping[bytes, bytes | None]) -> Image:
    image = Image(next_offset, latest.get(POSITION_KEY))
    for key, value in latest.items():
        kind = key[0]
        if kind == _WINDOW:
            image.windows[int.from_bytes(key[1:9], "big")] = value
        elif kind == _SEEN:
            image.seen[struct.unpack(">qq", key[1:17])] = value
    return image
