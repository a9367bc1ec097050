"""Stores held windows of a ledger on disk instead of in memory."""

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

import msgspec

from schemas.decoding import decoder
from schemas.ledger import Sum, Window
from streams.state.windows_file import PAGE, WindowsFile

_SCHEMA = """
CREATE TABLE held (first INTEGER PRIMARY KEY, customer BLOB NOT NULL, min_end_us INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX held_by_customer ON held (customer);
CREATE INDEX held_by_age ON held (min_end_us);
"""
_EVER_US = (1 << 63) - 1
_encode = msgspec.msgpack.Encoder().encode
_decode = decoder(Window, packed=True)


class EvictedWindowsFile(WindowsFile):
    """Implements `streams.core.metering.ledger_state.EvictedWindows` with a file.

    Args:
        room: number of held windows that stay in memory.
    """

    def __init__(self, room: int) -> None:
        super().__init__(_SCHEMA, "held_usage_stays_in_memory")
        self.room = room
        self.windows = 0
        self.customers = 0
        self.sums: dict[str, Sum] = {}

    def put(self, windows: Sequence[Window]) -> bool:
        """Store windows that are not in the file; False = the disk is full, and none is stored."""
        rows = [(window.first, window.customer_id.encode(), window.min_end_us, _encode(window)) for window in windows]
        rows.sort(key=itemgetter(1))  # sorted, so that neighbours in the index by customer are written together
        names = {row[1] for row in rows}
        new = sum(not self._has(name) for name in names)
        if not self._write(lambda: self._file.executemany("INSERT INTO held VALUES (?, ?, ?, ?)", rows)):
            return False
        self.customers += new
        self.windows += len(windows)
        self._count(windows, 1)
        return True

    def take(self, customer_id: str, after: int = -1, most: int = -1) -> list[Window]:
        """Remove and return at most `most` (-1: all) of the customer's windows with first offsets above `after`, in
        order.
        """
        if not self.windows:
            return []
        name = customer_id.encode()
        query = "SELECT value FROM held WHERE customer = ? AND first > ? ORDER BY first LIMIT ?"
        windows = [_decode(value) for (value,) in self._rows(query, name, after, most)]
        if windows:
            up_to = windows[-1].first
            self._file.execute("DELETE FROM held WHERE customer = ? AND first > ? AND first <= ?", (name, after, up_to))
            self.windows -= len(windows)
            self.customers -= not self._has(name)
            self._count(windows, -1)
        return windows

    def has(self, customer_id: str) -> bool:
        """Return whether the file has windows of the customer."""
        return bool(self.windows) and self._has(customer_id.encode())

    def customer_of(self, first: int) -> str | None:
        """Return the customer of the window with that first offset; None if the file has no such window."""
        if not self.windows:
            return None
        row = self._file.execute("SELECT customer FROM held WHERE first = ?", (first,)).fetchone()
        return None if row is None else row[0].decode()

    def names(self, until_us: int | None = None) -> Iterator[str]:
        """Yield the customers with calls that ended at or before `until_us`, read page by page, because they may change
        meanwhile.
        """
        after, most_us = b"", _EVER_US if until_us is None else until_us
        query = "SELECT DISTINCT customer FROM held WHERE customer > ? AND min_end_us <= ? ORDER BY customer LIMIT ?"
        while True:
            page = self._rows(query, after, most_us, PAGE)
            yield from (name.decode() for (name,) in page)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def oldest_us(self) -> int | None:
        """Return the end of the oldest call in the file, microseconds since 1970 UTC; None if the file is empty."""
        if not self.windows:
            return None
        oldest: int | None = self._file.execute("SELECT min(min_end_us) FROM held").fetchone()[0]
        return oldest

    def _has(self, name: bytes) -> bool:
        return self._file.execute("SELECT 1 FROM held WHERE customer = ? LIMIT 1", (name,)).fetchone() is not None

    def _rows(self, query: str, *values: object) -> list[tuple[bytes]]:
        return self._file.execute(query, values).fetchall()

    def _count(self, windows: Iterable[Window], sign: int) -> None:
        for window in windows:
            cost = window.cost if sign > 0 else -window.cost
            self.sums[window.held] = self.sums.get(window.held, Sum()) + Sum(sign * window.count, cost)
