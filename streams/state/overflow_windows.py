"""Windows of a changelog that is being read, beyond those that are kept in memory: the last value of each, in a file.

The file is a private one of SQLite, as that of `streams.state.held_on_disk`; it goes when the changelog was read.
"""

import sqlite3
from collections.abc import Iterator, Mapping

import structlog

log = structlog.get_logger(__name__)

#: Memory that SQLite may use, kB.
_CACHE_KB = 2_000
_PAGE = 1_000


class OlderWindows:
    """Values by first offset, undecoded; None for what is gone.

    Args:
        complete: the changelog is read from its beginning: what is gone need not be kept.
    """

    def __init__(self, *, complete: bool) -> None:
        self._complete = complete
        self._told = False
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.executescript(
            f"PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY; PRAGMA cache_size=-{_CACHE_KB};"
            "CREATE TABLE windows (first INTEGER PRIMARY KEY, value BLOB);"
        )

    def put(self, windows: Mapping[int, bytes | None]) -> bool:
        """Keep later values than those that are here; False where the disk takes no more: then none is kept."""
        gone = [(first,) for first, value in windows.items() if value is None] if self._complete else []
        kept = [one for one in windows.items() if not (self._complete and one[1] is None)]
        kept.sort()
        try:
            self._file.execute("BEGIN")
            self._file.executemany("DELETE FROM windows WHERE first = ?", gone)
            self._file.executemany("INSERT OR REPLACE INTO windows VALUES (?, ?)", kept)
            self._file.execute("COMMIT")
        except sqlite3.Error as error:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            if not self._told:
                log.error("changelog_stays_in_memory", error=type(error).__name__)  # noqa: TRY400
            self._told = True
            return False
        return True

    def items(self) -> Iterator[tuple[int, bytes | None]]:
        """All, in order of their first offsets."""
        after = -1
        while page := self._file.execute(
            "SELECT first, value FROM windows WHERE first > ? ORDER BY first LIMIT ?", (after, _PAGE)
        ).fetchall():
            yield from page
            after = page[-1][0]
