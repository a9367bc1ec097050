"""Follows `billing.receipts` from its beginning, so that totals survive a restart without a database.

Nothing is kept but the tallies (streams/core/delivery/event_states.py); what is counted goes back as far as the topic does.
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
from streams.runtime.compacted_table import TopicFollower
from streams.runtime.unreadable import note

_decode = decoder(Receipt)


class ReceiptsFollower(TopicFollower):
    """Totals of all receipts there are."""

    def __init__(self, kafka: Mapping[str, Any], topic: str, monotonic: Callable[[], float]) -> None:
        super().__init__(kafka, topic, monotonic, "receipts")
        self._tallies: dict[int, EventStateCounter] = {}

    def take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Count them."""
        self._tallies.setdefault(partition, EventStateCounter()).take([one for one in map(_read, records) if one])

    def totals(self) -> StateTotals | None:
        """None until the topic has been read to its end once: half a sum would pass for the whole."""
        return totals(self._tallies.values()) if self.complete() else None

    def state(self, transaction_id: str) -> str | None:
        """The state of an event; None where it is not remembered. Raises: Unavailable `counting`: not read yet."""
        if not self.complete():
            raise Unavailable("counting", "the receipts have not been read to their end yet")
        return next((state for one in self._tallies.values() if (state := one.state(transaction_id))), None)

    def states(self) -> dict[str, int] | None:
        """Events by their latest status; None until the topic has been read to its end once."""
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
