"""Lets a command continue after a record that it cannot read: the record is left out, counted and named.

Each account that may write to a topic can write such a record, and the workers skip it, too. A command that ended with
the first one could not be used as long as the topic keeps the record: for up to 30 days no ledger could be rebuilt.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from confluent_kafka import Message

from schemas.decoding import Unreadable
from schemas.plurals import numbered

T = TypeVar("T")


@dataclass(slots=True)
class DamagedRecords:
    """The records that could not be read: partition and offset of each, by topic. A record counts once."""

    _found: dict[str, dict[tuple[int, int], None]] = field(default_factory=dict)

    def read(self, decode: Callable[[bytes], T], message: Message, value: bytes | None = None) -> T | None:
        """Return the decoded value of a record; None = it cannot be read, and is counted.

        Args:
            decode: raises `schemas.decoding.Unreadable`, and nothing else.
            value: a part of the record, such as a header; None = the value of the record.
        """
        try:
            return decode(bytes(message.value() or b"") if value is None else value)
        except Unreadable:
            place = message.partition() or 0, message.offset() or 0
            self._found.setdefault(message.topic() or "", {})[place] = None
            return None

    def sentences(self) -> list[str]:
        """Return a sentence for each topic with such records."""
        return [
            f"{numbered(len(places), 'record')} of {topic} cannot be read, one of them at "
            f"partition {min(places)[0]}, offset {min(places)[1]}"
            for topic, places in sorted(self._found.items())
        ]
