"""How large a record is that a role takes as one of ours.

The broker compares the size of a compressed batch with a topic's `max.message.bytes`, and that limit differs between topics.
So a record that one topic accepted may be too large for the topics into which a role writes what becomes of it. The role would
stop at it, and at every further attempt.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final, Protocol

#: Bytes of key and value of a call in the raw topic. The ingress writes at most 900 000, and what the meter makes of this
#: number fits into every topic.
MOST_CALL_BYTES: Final = 1_000_000
#: Bytes of key, value and headers of an event that is written on unchanged, into a topic of 8 MiB.
MOST_EVENT_BYTES: Final = 4 << 20
#: Characters of an event's id and of its subscription. Receipts and records of posts repeat them.
MOST_ID_CHARS: Final = 1000
_MOST_KEY_BYTES: Final = 255


class SizedRecord(Protocol):
    """The part of a Kafka record that has its size."""

    key: bytes | None
    value: bytes | None


def is_outsized_call(record: SizedRecord) -> bool:
    """Return whether a record of the raw topic is too large for what the meter writes about it."""
    return len(record.value or b"") + len(record.key or b"") > MOST_CALL_BYTES


def is_outsized_event(record: SizedRecord, headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Return whether a record of the events or the retry topic is too large to be written on."""
    size = len(record.value or b"") + len(record.key or b"")
    return size + sum(len(name) + len(value or b"") for name, value in headers) > MOST_EVENT_BYTES


def short_key(key: bytes | None) -> bytes | None:
    """Return the key of a record; a longer one than any of ours by its hash."""
    return key if key is None or len(key) <= _MOST_KEY_BYTES else b"sha256:" + sha256(key).hexdigest().encode()
