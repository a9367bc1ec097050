"""The changes of one step: computed on copies, published in one transaction, then applied.

The ledger state is not changed until the transaction is committed. So an aborted step has no effect and can be
repeated.
"""

from dataclasses import dataclass, field

from schemas.ledger import SEEN_PREFIX, SETTLED_PREFIX, Job, Position, Window
from schemas.records import LagoEvent, Manifest, Receipt
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.notices import Notices


@dataclass(slots=True)
class SealedPart:
    """A part that leaves the ledger: its event, the calls that the event bills, and its number.

    `traceparent`: a header of the event's record, set if one of the calls is traced.
    """

    event: LagoEvent
    manifest: Manifest
    receipt: Receipt
    seal_seq: int
    traceparent: bytes = b""


@dataclass(slots=True)
class Changes:
    """The changes of one transaction to the ledger of a partition.

    Fields:
        position: the position after the step.
        windows: by first offset; None = removed.
        ready: windows that can be sealed at once: other metered events with a subscription.
        seen: identities counted in this step, packed with their tags. They belong to `seen_hour` and are stored under
            `seen_first`, the offset of the batch's first record.
        settled: the same for identities that were counted before without a cost.
        jobs: by identity; None = forgotten.
        dropped: identity chunks (hour, offset, prefixes) that left the dedupe retention.
        enriched: (key, value) of `litellm.usage.enriched`.
        rejected: (key, value) of `litellm.usage.rejected`.
        sealed: parts to emit.
        receipts: receipts of windows that leave the ledger without an event.
        shifted: number of `sealed` parts whose timestamp differs from the time of the usage.
        kept: number of due windows that became held instead.
        decisions: number of calls by decision, for the metrics.
        straddled: number of held windows that were released as a whole, although a border within them became known
            later.
        noticed: further observations for the operator.
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
        """Whether the step has nothing to write."""
        return not (self.windows or self.enriched or self.rejected or self.sealed or self.dropped or self.jobs)


def apply(ledger: LedgerState, changes: Changes, now_us: int) -> None:
    """Apply committed changes. `now_us`: wall clock, for windows that are sealed after a time without calls."""
    for first, window in changes.windows.items():
        if window is not None:
            ledger.put(window, now_us)
        elif first in ledger.windows:
            ledger.remove(first)
    ledger.forget_before(changes.position.dropped_hour)
    for hour, first, _ in changes.dropped:
        blocks = ledger.seen_blocks[hour]
        del blocks[first]
        if not blocks:
            del ledger.seen_blocks[hour]
    if changes.seen:
        ledger.seen.add(changes.seen, changes.seen_hour)
    if changes.settled:
        ledger.seen.put(changes.settled, changes.seen_hour)
    if prefixes := prefixes_of(changes):
        ledger.seen_blocks.setdefault(changes.seen_hour, {})[changes.seen_first] = prefixes
    for identity, job in changes.jobs.items():
        ledger.put_job(identity, job)
    ledger.position = changes.position


def held_after(ledger: LedgerState, changes: Changes) -> int:
    """Return the number of held windows, in memory and on disk, after the changes."""
    windows, opened = ledger.windows, ledger.open
    count = ledger.held_windows()
    for first, window in changes.windows.items():
        if first in windows and first not in opened:
            count -= 1
        if window is not None and window.held:
            count += 1
    return count


def prefixes_of(changes: Changes) -> bytes:
    """Return the prefixes of the changelog keys that hold the step's identities."""
    return (SEEN_PREFIX if changes.seen else b"") + (SETTLED_PREFIX if changes.settled else b"")
