"""Counts Lago events by state, from `billing.receipts` alone.

The receipts of one event are on one partition, in order, `pending` first. So one counter belongs to a partition, and
the totals are the counters' sums. Memory is bounded: it holds the events that are not completed (in flight, and dead
letters, which may be posted again), and for 48 hours the completed ones, at most 29 bytes each, so that a repeated
receipt is not counted twice.
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

#: How long a repeated receipt of a completed event is recognised, by the receipts' own times.
REMEMBERED_HOURS = 48


class StateTotals(NamedTuple):
    """Numbers of Lago events by state; `pending_events` are those neither completed nor failed."""

    total_events: int
    completed_events: int
    failed_events: int
    pending_events: int


class EventStateCounter:
    """The states of the events of one partition of `billing.receipts`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._unsettled: dict[bytes, str] = {}
        # Its library takes 6 MiB of memory; it is made with the first completed event.
        self._completed: SeenIds | None = None
        self._hour = 0
        self._dropped = 0

    def take(self, receipts: Sequence[Receipt]) -> None:
        """Count further receipts, in order of their offsets; repeating the last ones changes nothing.

        `completed` is final, except for what Lago itself takes back; see `takes_back`. `pending` only begins: it never
        resets a later state. An unknown status is left out.
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
        """The state of an event; None where it is not remembered."""
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
    """Whether a receipt changes an event's state; `before` None = nothing is known of the event."""
    if receipt.status not in STATUSES:
        return False
    if before == COMPLETED or takes_back(receipt):
        return before is not None and takes_back(receipt)
    return before is None or receipt.status != PENDING


def totals(tallies: Iterable[EventStateCounter]) -> StateTotals:
    """The sums over the partitions' counters."""
    counts: Counter[str] = Counter()
    for tally in tallies:
        counts.update(tally.counts)
    pending = counts[PENDING] + counts[PROCESSING]
    return StateTotals(pending + counts[COMPLETED] + counts[FAILED], counts[COMPLETED], counts[FAILED], pending)
