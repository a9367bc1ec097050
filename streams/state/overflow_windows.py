"""Stores the last values of windows that do not fit into memory while a changelog is read."""

from collections.abc import Iterator, Mapping

from streams.state.windows_file import PAGE, WindowsFile


class OlderWindows(WindowsFile):
    """A file with undecoded values by the window's first offset; None for a deleted window.

    Args:
        complete: whether the changelog is read from its beginning, so that deleted windows need not be kept.
    """

    def __init__(self, *, complete: bool) -> None:
        super().__init__("CREATE TABLE windows (first INTEGER PRIMARY KEY, value BLOB);", "changelog_stays_in_memory")
        self._complete = complete

    def put(self, windows: Mapping[int, bytes | None]) -> bool:
        """Replace older values by `windows`; False = the disk is full, and none of them is stored."""
        gone = [(first,) for first, value in windows.items() if value is None] if self._complete else []
        kept = sorted(window for window in windows.items() if not (self._complete and window[1] is None))

        def step() -> None:
            self._file.executemany("DELETE FROM windows WHERE first = ?", gone)
            self._file.executemany("INSERT OR REPLACE INTO windows VALUES (?, ?)", kept)

        return self._write(step)

    def items(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield every window in the order of the first offsets. One page at a time is in memory."""
        after = -1
        while page := self._file.execute(
            "SELECT first, value FROM windows WHERE first > ? ORDER BY first LIMIT ?", (after, PAGE)
        ).fetchall():
            yield from page
            after = page[-1][0]
