"""A table of windows in a private, anonymous SQLite file, which is empty at its opening and deleted at the end of the
process.

The changelog holds the durable copy. SQLite chooses the folder: `SQLITE_TMPDIR`, then `TMPDIR`, then /var/tmp.
"""

import sqlite3
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

#: The most memory that SQLite may use for one file, kB.
_CACHE_KB = 2_000
#: Number of rows that are read at once.
PAGE = 1_000


class WindowsFile:
    """One file with one schema.

    Args:
        schema: SQL that creates the table and its indexes.
        full: the log event of the first write that the disk refuses.
    """

    def __init__(self, schema: str, full: str) -> None:
        self._full = full
        self._logged = False
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.executescript(
            f"PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY; PRAGMA cache_size=-{_CACHE_KB};{schema}"
        )

    def _write(self, step: Callable[[], object]) -> bool:
        """Run `step` in one transaction; False = the disk refuses the write, and nothing of the step is stored."""
        try:
            self._file.execute("BEGIN")
            step()
            self._file.execute("COMMIT")
        except sqlite3.Error as error:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            if not self._logged:
                log.error(self._full, error=type(error).__name__)  # noqa: TRY400
            self._logged = True
            return False
        return True
