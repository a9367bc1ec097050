"""Calls that were put away stay away: a copy of one, as a replay makes, is no letter again.

A replay sends a call's record as it was, so the refused copy holds the same bytes.
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
    """The calls among refused ones that were purged, or known to be billed.

    Args:
        places: (partition, offset) of their letters.
    """

    def __init__(self, places: Collection[Place]) -> None:
        self._places = places
        self._calls: set[bytes] = set()

    def is_copy(self, message: Message) -> bool:
        """Whether a record is a later copy of one of them; records of a partition have to come in order."""
        if not self._places or (call := _call(message.value())) is None:
            return False
        if (message.partition(), message.offset()) in self._places:
            self._calls.add(call)
            return False
        return call in self._calls


def _call(value: bytes | None) -> bytes | None:
    """What tells a refused call from another; None of what is none, or was not kept."""
    try:
        refused = _rejection(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(refused.call, msgspec.Raw):
        return sha256(bytes(refused.call)).digest()
    return refused.sha256.encode() if refused.sha256 else None
