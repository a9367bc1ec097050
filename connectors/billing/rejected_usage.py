"""Reads `litellm.usage.rejected` from its beginning and counts the rejected calls by reason, without the marks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import ConsumerRecord

from schemas.decoding import decoder
from schemas.records import Rejection
from streams.runtime.compacted_table import TopicTable
from streams.runtime.unreadable import note

_decode = decoder(Rejection)


class RejectedFollower(TopicTable):
    """Counts the rejected calls in the topic by reason."""

    def __init__(self, kafka: Mapping[str, Any], topic: str, monotonic: Callable[[], float]) -> None:
        super().__init__(kafka, topic, monotonic, "rejected")
        self._counts: Counter[str] = Counter()

    def take(self, partition: int, records: Sequence[ConsumerRecord]) -> None:
        """Count the records of one fetch."""
        for record in records:
            if record.value is None:
                continue
            try:
                self._counts[_decode(record.value).reason] += 1
            except msgspec.DecodeError:
                note(self.name, partition, record.offset)

    def by_reason(self) -> dict[str, int] | None:
        """Return the number of rejected calls by reason; None until the topic has been read to its end."""
        return dict(sorted(self._counts.items())) if self.complete() else None
