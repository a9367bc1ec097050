"""Counts Lago events by state, from `billing.receipts` alone.

The receipts of one event are on one partition, in order, `pending` first. So each partition has a counter, and the
totals are the sums of the counters. Memory is bounded: a counter keeps the events that are not completed (in flight,
and dead letters, which may be posted again). Completed events are kept for 48 hours, at most 29 bytes each, so that a
repeated receipt is not counted twice.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from schemas.moments import HOUR_US
from schemas.records import Receipt
from streams.core.delivery.receipt_states import COMPLETED, FAILED, PENDING, PROCESSING, STATUSES, takes_back

if TYPE_CHECKING:
    from streams.core.metering.dedupe_set import SeenIds

#: How long a repeated receipt of a completed event is recognised, by the timestamps of the receipts.
REMEMBERED_HOURS = 48


class StateTotals(NamedTuple):
    """Numbers of Lago events by state; `pending_events` are neither completed nor failed."""

    total_events: int
    completed_events: int
    failed_events: int
    pending_events: int


class EventStateCounter:
    """The states of the events of one partition of `billing.receipts`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._unsettled: dict[bytes, str] = {}
        # Created with the first completed event, because its library needs 6 MiB of memory.
        self._completed: SeenIds | None = None
        self._hour = 0
        self._dropped = 0

    def take(self, receipts: Sequence[Receipt]) -> None:
        """Count further receipts, in order of their offsets; repeating the last ones changes nothing.

        `completed` is final unless Lago itself revokes it, see `takes_back`. `pending` never replaces a later state. An
        unknown status is ignored.
        """
        ids = [blake2b(receipt.transaction_id.encode(), digest_size=16).digest() for receipt in receipts]
        completed: dict[bytes, None] = {}
        for identity, receipt, known in zip(ids, receipts, self._contains(ids), strict=True):
            was_completed = known or identity in completed
            before = self._unsettled.get(identity) or (COMPLETED if was_completed else None)
            if not _follows(before, receipt):
                continue
            if before is not None:
                self.counts[before] -= 1
            self.counts[receipt.status] += 1
            if receipt.status != COMPLETED:
                self._unsettled[identity] = receipt.status
                continue
            self._unsettled.pop(identity, None)
            if not was_completed:
                completed[identity] = None
        self._remember(completed, max((receipt.at for receipt in receipts), default=0) // HOUR_US)

    def state(self, transaction_id: str) -> str | None:
        """Return the state of an event; None if it is not remembered."""
        identity = blake2b(transaction_id.encode(), digest_size=16).digest()
        if (status := self._unsettled.get(identity)) is not None:
            return status
        return COMPLETED if self._contains([identity])[0] else None

    def _contains(self, ids: Sequence[bytes]) -> list[bool]:
        return [False] * len(ids) if self._completed is None else self._completed.contains(ids)

    def _remember(self, completed: dict[bytes, None], hour: int) -> None:
        if hour > self._hour:
            self._hour = hour
            oldest = hour - REMEMBERED_HOURS
            if self._completed is not None:
                self._completed.drop_before(oldest, self._dropped)
            self._dropped = oldest
        if completed:
            if self._completed is None:
                from streams.core.metering.dedupe_set import SeenIds

                self._completed = SeenIds()
            self._completed.add(b"".join(completed), self._hour)


def _follows(before: str | None, receipt: Receipt) -> bool:
    """Return whether a receipt changes an event's state; `before`: None = the event is unknown."""
    if receipt.status not in STATUSES:
        return False
    if before == COMPLETED or takes_back(receipt):
        return before is not None and takes_back(receipt)
    return before is None or receipt.status != PENDING


def totals(tallies: Iterable[EventStateCounter]) -> StateTotals:
    """Return the sums of the partitions' counters."""
    counts: Counter[str] = Counter()
    for tally in tallies:
        counts.update(tally.counts)
    pending = counts[PENDING] + counts[PROCESSING]
    return StateTotals(pending + counts[COMPLETED] + counts[FAILED], counts[COMPLETED], counts[FAILED], pending)
