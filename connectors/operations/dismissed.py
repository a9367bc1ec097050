"""Recognises copies of dismissed calls. A replay makes such copies, and they are no dead letters.

A replay sends the record of a call unchanged, so the rejected copy holds the same bytes.
"""

from collections.abc import Collection
from hashlib import sha256

import msgspec
from confluent_kafka import Message

from schemas.decoding import decoder
from schemas.records import Rejection

_rejection = decoder(Rejection)
Place = tuple[int | None, int | None]


class Dismissed:
    """The rejected calls that were dismissed, or that were counted already.

    Args:
        places: (partition, offset) of each dead letter.
    """

    def __init__(self, places: Collection[Place]) -> None:
        self._places = places
        self._calls: set[bytes] = set()

    def is_copy(self, message: Message) -> bool:
        """Return whether a record is a later copy of a dismissed call. The records of a partition must come in order."""
        if not self._places or (call := _call(message.value())) is None:
            return False
        if (message.partition(), message.offset()) in self._places:
            self._calls.add(call)
            return False
        return call in self._calls


def _call(value: bytes | None) -> bytes | None:
    """Return a hash of the rejected call; None = the record holds no call."""
    try:
        refused = _rejection(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(refused.call, msgspec.Raw):
        return sha256(bytes(refused.call)).digest()
    return refused.sha256.encode() if refused.sha256 else None
