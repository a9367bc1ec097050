"""The books of one partition: counters that must add up, and the state they describe."""

from collections.abc import Iterable
from decimal import Decimal

from schemas.errors import LedgerBroken
from schemas.ledger import Counters, Position, Sum, Window, WindowKey, window_key
from schemas.money import add
from streams.core.seen import SeenIds


class Books:
    """State of one partition in memory; a function of its changelog.

    Fields:
        windows: open and held windows by first offset; `index` from key to first offset, the lowest where several
            windows have the key: those that were resolved apart, and could not be billed.
        open: first offsets of the windows that have a subscription, with when they were opened and
            last folded into (microseconds, not persisted: a reopened ledger starts the wait anew).
        held: first offsets of held windows by customer.
        metered: first offsets of the other metered events that wait here, by identity.
        seen: identities inside the horizon; `seen_chunks` their changelog keys by hour.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self.windows: dict[int, Window] = {}
        self.index: dict[WindowKey, int] = {}
        self._alike: dict[WindowKey, set[int]] = {}
        self.open: dict[int, tuple[int, int]] = {}
        self.held: dict[str, set[int]] = {}
        self.metered: dict[bytes, int] = {}
        self.seen = SeenIds()
        self.seen_chunks: dict[int, dict[int, None]] = {}

    def put(self, window: Window, now_us: int) -> None:
        """Add a window or replace the one with its first offset."""
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

    def remove(self, first: int) -> None:
        """Take a sealed, merged or written-off window out."""
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


def total(windows: Iterable[Window]) -> Sum:
    """Calls and cost of windows together."""
    calls, cost = 0, Decimal(0)
    for window in windows:
        calls += window.count
        cost = add(cost, window.cost)
    return Sum(calls, cost)


def difference(counters: Counters, windows: Iterable[Window]) -> tuple[Sum, Sum]:
    """What the two laws of conservation are off by; both are zero in books that add up."""
    received = _minus(counters.received, counters.folded, counters.duplicate, counters.rejected, counters.unbilled)
    folded = _minus(counters.folded, counters.sealed, counters.written_off, total(windows))
    return received, folded


def verify(books: Books) -> None:
    """Check conservation.

    Raises:
        LedgerBroken: `conservation`: the lane stops and alarms; nothing is billed from such books.
    """
    received, folded = difference(books.position.counters, books.windows.values())
    if received.calls or received.cost or folded.calls or folded.cost:
        raise LedgerBroken(
            "conservation",
            f"received is off by {received.calls} calls, {received.cost} USD; "
            f"folded by {folded.calls} calls, {folded.cost} USD",
        )


def _minus(whole: Sum, *parts: Sum) -> Sum:
    calls, cost = whole.calls, whole.cost
    for part in parts:
        calls -= part.calls
        cost = add(cost, -part.cost)
    return Sum(calls, cost)
