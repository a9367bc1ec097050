"""The ledger state of one partition: counters that must add up, and the windows that they count."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

from schemas.errors import LedgerBroken
from schemas.ledger import Job, Position, Sum, Window, WindowKey, window_key
from schemas.plurals import numbered
from streams.core.metering.conservation import off_by, sum_of_windows
from streams.core.metering.dedupe_set import SeenIds


class EvictedWindows(Protocol):
    """A store for held windows outside memory.

    Fields:
        room: number of held windows that stay in memory.
        windows, customers: numbers of windows and customers in this store.
        sums: their calls and cost, by the reason why they are held.
    """

    room: int
    windows: int
    customers: int
    sums: dict[str, Sum]

    def put(self, windows: Sequence[Window]) -> bool: ...
    def take(self, customer_id: str, after: int = -1, most: int = -1) -> list[Window]: ...
    def has(self, customer_id: str) -> bool: ...
    def customer_of(self, first: int) -> str | None: ...
    def names(self, until_us: int | None = None) -> Iterator[str]: ...
    def oldest_us(self) -> int | None: ...


class LedgerState:
    """The state of one partition; its changelog determines it completely.

    Held windows beyond a bound are in `cold` and in none of the other fields. A new call of their customer begins
    another window. Code that examines the windows of one customer calls `warm` first.

    Fields:
        windows: open and held windows in memory, by first offset.
        index: maps a window's key to its first offset. Several windows can have one key if they were resolved
            separately and could not be billed. Then it has the lowest offset.
        open: first offsets of the windows with a subscription, with the times of their opening and of their last call.
            The times are microseconds and not persisted, so a reopened ledger starts the wait again.
        held: first offsets of held windows by customer.
        metered: first offsets of the other metered events that wait here, by identity of the event.
        seen: identities within the dedupe retention.
        seen_blocks: the changelog keys of `seen`: the prefixes in use, by hour and offset.
        jobs: jobs by identity, in order of their hours.
    """

    def __init__(self, position: Position, cold: EvictedWindows | None = None) -> None:
        self.position = position
        self.cold = cold
        self.windows: dict[int, Window] = {}
        self.index: dict[WindowKey, int] = {}
        self._alike: dict[WindowKey, set[int]] = {}
        self.open: dict[int, tuple[int, int]] = {}
        self.held: dict[str, set[int]] = {}
        self.metered: dict[bytes, int] = {}
        self.seen = SeenIds()
        self.seen_blocks: dict[int, dict[int, bytes]] = {}
        self.jobs: dict[bytes, Job] = {}

    def put(self, window: Window, now_us: int) -> None:
        """Add a window, or replace the one with the same first offset."""
        first = window.first
        old = self.windows.get(first)
        if old is None:
            self._enter(window_key(window), first)
        elif (key := window_key(window)) != window_key(old) or bool(old.held) != bool(window.held):
            self.remove(first)
            self._enter(key, first)
        self.windows[first] = window
        if window.metered is not None:
            self.metered[window.identity] = first
        if window.held:
            self.held.setdefault(window.customer_id, set()).add(first)
        else:
            opened = self.open.get(first)
            self.open[first] = (now_us if opened is None else opened[0], now_us)

    def over(self) -> int:
        """Number of held windows in memory beyond the bound; 0 or less if there is space."""
        return 0 if self.cold is None else len(self.windows) - len(self.open) - self.cold.room

    def held_windows(self) -> int:
        """Number of held windows, in memory and on disk."""
        return len(self.windows) - len(self.open) + (0 if self.cold is None else self.cold.windows)

    def full(self) -> bool:
        """Return whether memory has no space for another held window."""
        return self.cold is not None and self.over() >= 0

    def store(self, windows: Sequence[Window], now_us: int) -> None:
        """Put held windows on disk, or into memory if the disk is full."""
        if windows and (self.cold is None or not self.cold.put(windows)):
            for window in windows:
                self.put(window, now_us)

    def warm(self, customer_id: str, after: int = -1, most: int = -1) -> list[Window]:
        """Bring windows of the customer back from disk: at most `most` (-1: all) with first offsets above `after`."""
        windows = [] if self.cold is None else self.cold.take(customer_id, after, most)
        for window in windows:
            self.put(window, 0)
        return windows

    def warm_part(self, first: int) -> bool:
        """Return whether the window exists. The windows of its customer are brought back from disk."""
        if first not in self.windows and self.cold is not None:
            customer_id = self.cold.customer_of(first)
            if customer_id is not None:
                self.warm(customer_id)
        return first in self.windows

    def chill(self, goes: Callable[[str], bool], left: int, most: int) -> list[Window]:
        """Move held windows to disk, the oldest first, for customers for which `goes` is true; return the moved
        windows.

        Other metered events stay, because they have a bound of their own.

        Args:
            left: number of held windows at which the move stops.
            most: the most windows to move.
        """
        if self.cold is None:
            return []
        over, moved = min(most, len(self.windows) - len(self.open) - left), list[Window]()
        for customer_id, firsts in self.held.items():
            if len(moved) >= over:
                break
            if goes(customer_id):
                windows = (window for first in firsts if (window := self.windows[first]).metered is None)
                moved += islice(windows, over - len(moved))
        if not moved or not self.cold.put(moved):
            return []
        for window in moved:
            self.remove(window.first)
        return moved

    def waiting(self) -> Sum:
        """Return calls and cost of all windows, in memory and on disk."""
        on_disk = () if self.cold is None else self.cold.sums.values()
        return sum(on_disk, sum_of_windows(self.windows.values()))

    def forget_before(self, hour: int) -> None:
        """Forget the identities of the hours from `position.dropped_hour` to `hour`.

        Only hours that are there are given to the table, which cannot distinguish all hours. A ledger that `ledger
        rebuild` has written has forgotten none since 1970, and its clock may be weeks behind its identities.
        """
        oldest = self.position.dropped_hour
        if oldest < hour:
            gone = [past for past in self.seen_blocks if oldest <= past < hour]
            self.seen.drop(gone, [past for past in self.seen_blocks if past >= hour])

    def put_job(self, identity: bytes, job: Job | None) -> None:
        """Remember the latest report of a job; None = forget the job."""
        self.jobs.pop(identity, None)
        if job is not None:
            self.jobs[identity] = job

    def remove(self, first: int) -> None:
        """Remove a window that was sealed, merged or written off."""
        window = self.windows.pop(first)
        self._leave(window_key(window), first)
        if window.metered is not None:
            self.metered.pop(window.identity, None)
        if window.held:
            firsts = self.held[window.customer_id]
            firsts.discard(first)
            if not firsts:
                del self.held[window.customer_id]
        else:
            del self.open[first]

    def _enter(self, key: WindowKey, first: int) -> None:
        there = self.index.setdefault(key, first)
        if there != first:
            alike = self._alike.setdefault(key, {there})
            alike.add(first)
            self.index[key] = min(alike)

    def _leave(self, key: WindowKey, first: int) -> None:
        alike = self._alike.get(key)
        if alike is None:
            del self.index[key]
            return
        alike.discard(first)
        self.index[key] = min(alike)
        if len(alike) == 1:
            del self._alike[key]


def verify(ledger: LedgerState) -> None:
    """Check conservation.

    Raises:
        LedgerBroken: `ledger_imbalance`. The partition is halted with an alarm, and nothing is billed from this ledger.
    """
    received, folded = off_by(ledger.position.counters, ledger.waiting())
    if received.calls or received.cost or folded.calls or folded.cost:
        raise LedgerBroken(
            "ledger_imbalance",
            f"received is off by {numbered(received.calls, 'call')}, {received.cost} USD; "
            f"folded by {numbered(folded.calls, 'call')}, {folded.cost} USD",
        )
