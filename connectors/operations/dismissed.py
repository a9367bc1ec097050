"""Recognises copies of dismissed calls. A replay makes such copies, and they are no dead letters.

A replay sends the record of a call unchanged, so the rejected copy holds the same bytes. The view `open_rejected_calls` has the
same rule for the rows in Postgres. Only a later record of the same partition is a copy: partitions are read in any order, and what
an earlier record or another partition has stays visible.
"""

from collections.abc import Collection

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
        self._calls: set[tuple[int | None, bytes]] = set()

    def is_copy(self, message: Message) -> bool:
        """Return whether a record is a later copy of a dismissed call in its partition. The records of a partition must come
        in order.
        """
        if not self._places or (digest := _digest(message.value())) is None:
            return False
        call = message.partition(), digest
        if (message.partition(), message.offset()) in self._places:
            self._calls.add(call)
            return False
        return call in self._calls


def _digest(value: bytes | None) -> bytes | None:
    """Return the digest of the rejected call; None = the record holds no call."""
    try:
        return _rejection(value or b"").content_digest
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
