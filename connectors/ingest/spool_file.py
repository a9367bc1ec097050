"""The file of the spool: records in the order in which they were written.

It is SQLite with a write-ahead log and an fsync at every commit. One process has the file locked; the kernel releases the lock
when the process ends in any way. The methods block, so `Spool` calls them in a thread.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from connectors.kafka.producer import Record
from schemas.errors import ConfigurationError, Unavailable

#: The disk or `SPOOL_MAX_BYTES` is full; any other failure of the disk.
SPOOL_FULL, SPOOL_FAILED = "spool_full", "spool_failed"

_VERSION = 1
_BUSY_S = 1.0
_SCHEMA = "CREATE TABLE spool (id INTEGER PRIMARY KEY, topic TEXT, key TEXT, value BLOB, at_ms INTEGER)"
_INSERT = "INSERT INTO spool (topic, key, value, at_ms) VALUES (?, ?, ?, ?)"
_OLDEST = "SELECT id, topic, key, value, at_ms FROM spool WHERE id > ? ORDER BY id LIMIT ?"
_TOPICS = "SELECT topic, COUNT(*) FROM spool GROUP BY topic ORDER BY topic"
_CANNOT_OPEN = "cannot be opened: its folder has to exist and be writable"
_TOTALS = "SELECT COUNT(*), COALESCE(SUM(LENGTH(value)), 0), (SELECT at_ms FROM spool ORDER BY id LIMIT 1) FROM spool"


@dataclass(frozen=True, slots=True)
class SpoolTotals:
    """The contents of the file; `oldest_ms` is a record time, milliseconds since 1970 UTC, None for an empty file."""

    records: int
    bytes: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class SpoolBatch:
    """The oldest records; `last` is the argument of `delete` when they are in Kafka."""

    records: list[Record]
    last: int
    bytes: int


class SpoolFile:
    """The file at `path`; no other process may use it.

    Args:
        max_bytes: limit of the file; the log beside it may have 16 MiB more.

    Raises:
        ConfigurationError: another process uses it, or it is not a spool.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._done = 0  # all ids up to this are in Kafka, but the disk was too full to delete them
        self._worthless = False  # the file must be created again before it is used
        self._open()

    def totals(self) -> SpoolTotals:
        """Return the totals. This reads the whole file, so it is called only at the start."""
        with _disk_errors(), closing(self._db.execute(_TOTALS)) as rows:
            return SpoolTotals(*rows.fetchone())

    def topics(self) -> dict[str, int]:
        """Return the number of records per topic; called only at the start."""
        with _disk_errors(), closing(self._db.execute(_TOPICS)) as rows:
            return dict(rows.fetchall())

    def append(self, groups: Sequence[Sequence[Record]]) -> list[Unavailable | None]:
        """Write each group in its order; the result has an error at the index of each group that was not written.

        All groups share one fsync. If the groups do not fit together, each group is written alone.
        """
        try:
            self._insert(record for group in groups for record in group)
        except Unavailable as error:
            return [error] if len(groups) == 1 else [self.append([group])[0] for group in groups]
        return [None] * len(groups)

    def oldest(self, max_records: int, max_bytes: int) -> SpoolBatch:
        """Return the oldest records; at least one unless the file is empty."""
        batch, last, size = list[Record](), self._done, 0
        with _disk_errors(), closing(self._db.execute(_OLDEST, (last, max_records))) as rows:
            for row in rows:
                last, record = row[0], row[1:]
                batch.append(record)
                size += len(record[2])
                if size >= max_bytes:
                    break
        return SpoolBatch(batch, last, size)

    def delete(self, last: int) -> None:
        """Delete all records up to the id `last`, which are in Kafka.

        A delete needs free space. If the disk is full, the records stay, but this process does not return them again; when the
        file has no other records, it is created again.
        """
        try:
            with self._transaction():
                self._db.execute("DELETE FROM spool WHERE id <= ?", (last,))
            self._done = 0
        except Unavailable:
            self._done = last
            if not self.oldest(1, 1).records:
                self._recreate()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    def _insert(self, records: Iterable[Record]) -> None:
        if self._worthless:
            self._recreate()
        with self._transaction():
            self._db.executemany(_INSERT, records)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _disk_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _recreate(self) -> None:
        """Create the file again: all its records are in Kafka, and without it the disk has free space."""
        self.close()
        self._worthless = True
        try:
            for left in (self._path, self._path.with_name(self._path.name + "-wal")):
                left.unlink(missing_ok=True)
            self._open()
        except (OSError, ConfigurationError) as error:
            raise Unavailable(SPOOL_FAILED, "the file cannot be created again") from error
        self._done = 0
        self._worthless = False

    def _open(self) -> None:
        try:
            # A missing folder is a volume that is not mounted; a file that SQLite created there would be lost with the container.
            _made_for_us_alone(self._path)
            self._db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise ConfigurationError("SPOOL_PATH", f"SPOOL_PATH {self._path} {_sentence(error)}") from error
        except OSError as error:
            raise ConfigurationError("SPOOL_PATH", f"SPOOL_PATH {self._path} {_CANNOT_OPEN}") from error

    def _prepare(self) -> None:
        # Exclusive locking before WAL: then only one process can use it, and WAL needs no shared memory (sqlite.org/wal.html,
        # section 8).
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        self._db.execute("BEGIN EXCLUSIVE")
        [version] = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"it was written by another version ({version})")
        if not version:  # an existing spool is opened without a write, because its disk may be full
            self._db.execute(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
        self._db.execute("COMMIT")
        [page_bytes] = self._db.execute("PRAGMA page_size").fetchone()
        self._db.execute(f"PRAGMA max_page_count = {self._max_bytes // page_bytes}").fetchall()
        folder = os.open(self._path.parent, os.O_RDONLY)
        with suppress(OSError):  # some file systems cannot do this
            os.fsync(folder)
        os.close(folder)


def _made_for_us_alone(path: Path) -> None:
    """Create the file with rights for its owner only, or correct the rights; SQLite gives its log the same ones."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        raise Unavailable(SPOOL_FULL if full else SPOOL_FAILED, _name(error)) from error


def _sentence(error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorcode", None):
        case sqlite3.SQLITE_BUSY:
            return "is in use by another process: each ingress needs a spool of its own"
        case sqlite3.SQLITE_CANTOPEN:
            return _CANNOT_OPEN
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return "is not a spool, or is damaged: keep the file, and start with another path"
        case _:
            return f"cannot be used: {error}"


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
