"""What one step wants to change: computed on copies, published in one transaction, then applied.

Nothing of the books is touched before the transaction is committed, so an aborted step leaves no
trace and may simply be repeated.
"""

from dataclasses import dataclass, field

from schemas.ledger import Position, Window
from schemas.records import LagoEvent, Manifest, Receipt
from streams.core.books import Books


@dataclass(slots=True)
class Sealed:
    """A part that leaves the ledger: its event, which calls it bills, its number."""

    event: LagoEvent
    manifest: Manifest
    receipt: Receipt
    seal_seq: int


@dataclass(slots=True)
class Changes:
    """One transaction's worth of change to the books of a partition.

    Fields:
        position: the position after it.
        windows: by first offset; None = removed.
        ready: those of `windows` that wait for nothing: other metered events with a subscription.
        seen: identities counted now, packed; they belong to `seen_hour` and are stored under
            `seen_first`, the offset of the first record of the chunk.
        dropped: identity chunks (hour, offset) that left the horizon.
        enriched: (key, value) of `litellm.usage.enriched`.
        rejected: (key, value) of `litellm.usage.rejected`.
        sealed: parts that are emitted.
        receipts: of windows that leave without becoming an event.
        decisions: number of calls by decision, for the metrics.
        straddled: held windows that were released whole though a border that was learnt later lies in them.
    """

    position: Position
    windows: dict[int, Window | None] = field(default_factory=dict)
    ready: list[Window] = field(default_factory=list)
    seen: bytes = b""
    seen_hour: int = 0
    seen_first: int = 0
    dropped: list[tuple[int, int]] = field(default_factory=list)
    enriched: list[tuple[bytes | None, bytes]] = field(default_factory=list)
    rejected: list[tuple[bytes | None, bytes]] = field(default_factory=list)
    sealed: list[Sealed] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    decisions: dict[str, int] = field(default_factory=dict)
    straddled: int = 0

    @property
    def empty(self) -> bool:
        """Nothing would be written."""
        return not (self.windows or self.enriched or self.rejected or self.sealed or self.dropped)


def apply(books: Books, changes: Changes, now_us: int) -> None:
    """Swap the committed changes in; `now_us` is when, for windows that wait to be quiet."""
    for first, window in changes.windows.items():
        if window is not None:
            books.put(window, now_us)
        elif first in books.windows:
            books.remove(first)
    for hour, first in changes.dropped:
        chunks = books.seen_chunks[hour]
        del chunks[first]
        if not chunks:
            del books.seen_chunks[hour]
    if changes.position.dropped_hour > books.position.dropped_hour:
        books.seen.drop_before(changes.position.dropped_hour, books.position.dropped_hour)
    if changes.seen:
        books.seen.add(changes.seen, changes.seen_hour)
        books.seen_chunks.setdefault(changes.seen_hour, {})[changes.seen_first] = None
    books.position = changes.position
