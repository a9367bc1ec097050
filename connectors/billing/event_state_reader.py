"""Reads `billing.receipts` from its beginning, so that the totals survive a restart without a database.

Only counts are kept (streams/core/delivery/event_states.py). They cover the same time as the topic.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import ConsumerRecord

from schemas.decoding import decoder
from schemas.errors import Unavailable
from schemas.records import Receipt
from streams.core.delivery.event_states import EventStateCounter, StateTotals, totals
from streams.runtime.compacted_table import TopicTable
from streams.runtime.unreadable import note

_decode = decoder(Receipt)


class ReceiptsFollower(TopicTable):
    """Counts the events of all receipts in the topic by their latest state."""

    def __init__(self, kafka: Mapping[str, Any], topic: str, monotonic: Callable[[], float]) -> None:
        super().__init__(kafka, topic, monotonic, "receipts")
        self._tallies: dict[int, EventStateCounter] = {}

    def take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Count the receipts of one fetch."""
        self._tallies.setdefault(partition, EventStateCounter()).take([one for one in map(_read, records) if one])

    def totals(self) -> StateTotals | None:
        """Return the totals; None until the topic has been read to its end, because an incomplete sum would look like
        the whole.
        """
        return totals(self._tallies.values()) if self.complete() else None

    def state(self, transaction_id: str) -> str | None:
        """Return the state of an event; None = it is not in the topic. Raises: Unavailable `counting`: the topic is not
        read yet.
        """
        if not self.complete():
            raise Unavailable("counting", "the receipts have not been read to their end yet")
        return next((state for tally in self._tallies.values() if (state := tally.state(transaction_id))), None)

    def states(self) -> dict[str, int] | None:
        """Return the number of events by their latest state; None until the topic has been read to its end."""
        counts: Counter[str] = Counter()
        for tally in self._tallies.values():
            counts.update(tally.counts)
        return dict(counts) if self.complete() else None


def _read(record: ConsumerRecord) -> Receipt | None:
    try:
        return _decode(record.value or b"")
    except msgspec.DecodeError:
        note("receipts", record.partition, record.offset)
        return None
