"""What one step wants to change: computed on copies, published in one transaction, then applied.

Nothing of the books is touched before the transaction is committed, so an aborted step leaves no
trace and may simply be repeated.
"""

from dataclasses import dataclass, field

from schemas.ledger import SEEN_PREFIX, SETTLED_PREFIX, Job, Position, Window
from schemas.records import LagoEvent, Manifest, Receipt
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.notices import Notices


@dataclass(slots=True)
class SealedPart:
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
        seen: identities counted now, packed with their tags; they belong to `seen_hour` and are stored under
            `seen_first`, the offset of the first record of the chunk.
        settled: the same, of identities that were counted before without a cost.
        jobs: by identity; None = forgotten.
        dropped: identity chunks (hour, offset, prefixes) that left the horizon.
        enriched: (key, value) of `litellm.usage.enriched`.
        rejected: (key, value) of `litellm.usage.rejected`.
        sealed: parts that are emitted.
        receipts: of windows that leave without becoming an event.
        shifted: how many of `sealed` are billed at another moment than they happened.
        kept: how many windows were to be sealed and are held instead.
        decisions: number of calls by decision, for the metrics.
        straddled: held windows that were released whole though a border that was learnt later lies in them.
        noticed: what else an operator should hear of.
    """

    position: Position
    windows: dict[int, Window | None] = field(default_factory=dict)
    ready: list[Window] = field(default_factory=list)
    seen: bytes = b""
    settled: bytes = b""
    jobs: dict[bytes, Job | None] = field(default_factory=dict)
    seen_hour: int = 0
    seen_first: int = 0
    dropped: list[tuple[int, int, bytes]] = field(default_factory=list)
    enriched: list[tuple[bytes | None, bytes]] = field(default_factory=list)
    rejected: list[tuple[bytes | None, bytes]] = field(default_factory=list)
    sealed: list[SealedPart] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    decisions: dict[str, int] = field(default_factory=dict)
    shifted: int = 0
    kept: int = 0
    straddled: int = 0
    noticed: Notices = field(default_factory=Notices)

    @property
    def empty(self) -> bool:
        """Nothing would be written."""
        return not (self.windows or self.enriched or self.rejected or self.sealed or self.dropped or self.jobs)


def apply(books: LedgerState, changes: Changes, now_us: int) -> None:
    """Swap the committed changes in; `now_us` is when, for windows that wait to be quiet."""
    for first, window in changes.windows.items():
        if window is not None:
            books.put(window, now_us)
        elif first in books.windows:
            books.remove(first)
    for hour, first, _ in changes.dropped:
        chunks = books.seen_chunks[hour]
        del chunks[first]
        if not chunks:
            del books.seen_chunks[hour]
    if changes.position.dropped_hour > books.position.dropped_hour:
        books.seen.drop_before(changes.position.dropped_hour, books.position.dropped_hour)
    if changes.seen:
        books.seen.add(changes.seen, changes.seen_hour)
    if changes.settled:
        books.seen.put(changes.settled, changes.seen_hour)
    if prefixes := prefixes_of(changes):
        books.seen_chunks.setdefault(changes.seen_hour, {})[changes.seen_first] = prefixes
    for identity, job in changes.jobs.items():
        books.put_job(identity, job)
    books.position = changes.position


def held_after(books: LedgerState, changes: Changes) -> int:
    """Held windows, wherever they are, once the changes are applied."""
    windows, opened = books.windows, books.open
    count = books.held_windows()
    for first, window in changes.windows.items():
        if first in windows and first not in opened:
            count -= 1
        if window is not None and window.held:
            count += 1
    return count


def prefixes_of(changes: Changes) -> bytes:
    """Prefixes of the changelog keys that the step's identities are stored under."""
    return (SEEN_PREFIX if changes.seen else b"") + (SETTLED_PREFIX if changes.settled else b"")
