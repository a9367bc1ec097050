"""The spool's file: records in the order they came, each on disk before anybody hears of it.

SQLite with a write-ahead log that is fsynced at every commit. One process holds the file; the kernel lets go
of it when that process dies, however it dies. Blocking: `Spool` gives it a thread.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from connectors.kafka.producer import Record
from schemas.errors import ConfigurationError, Unavailable

#: No room on the disk or within `SPOOL_MAX_BYTES`; any other failure of the disk.
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
    """What is in the file; `oldest_ms` is a record time, milliseconds since 1970 UTC, None for an empty file."""

    records: int
    bytes: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class SpoolBatch:
    """The oldest records; `last` is what `delete` wants to hear once they are in Kafka."""

    records: list[Record]
    last: int
    bytes: int


class SpoolFile:
    """The file at `path`, which only this process may use.

    Args:
        max_bytes: of the file; the log beside it may take 16 MiB more.

    Raises:
        ConfigurationError: another process has it, or it cannot be a spool.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._done = 0  # all ids up to this are in Kafka, though the disk was too full to delete them
        self._worthless = False  # to be made anew before it is used
        self._open()

    def totals(self) -> SpoolTotals:
        """Counted by reading everything: for the start."""
        with _disk_errors(), closing(self._db.execute(_TOTALS)) as found:
            return SpoolTotals(*found.fetchone())

    def topics(self) -> dict[str, int]:
        """How many records there are for each topic: for the start, as `totals`."""
        with _disk_errors(), closing(self._db.execute(_TOPICS)) as found:
            return dict(found.fetchall())

    def append(self, groups: Sequence[Sequence[Record]]) -> list[Unavailable | None]:
        """Each group is on disk with its order, or its place in the answer says why it is not.

        All groups share one fsync; where they do not fit together, each is tried by itself.
        """
        try:
            self._insert(record for group in groups for record in group)
        except Unavailable as error:
            return [error] if len(groups) == 1 else [self.append([group])[0] for group in groups]
        return [None] * len(groups)

    def oldest(self, max_records: int, max_bytes: int) -> SpoolBatch:
        """At least one record, unless the file is empty."""
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
        """Forget all records up to `last`; they are in Kafka.

        A delete needs room itself. On a full disk the records stay, but are not given out again by this process;
        once there is nothing else in the file it is made anew.
        """
        try:
            with self._transaction():
                self._db.execute("DELETE FROM spool WHERE id <= ?", (last,))
            self._done = 0
        except Unavailable:
            self._done = last
            if not self.oldest(1, 1).records:
                self._make_anew()

    def close(self) -> None:
        """Twice does nothing."""
        self._db.close()

    def _insert(self, records: Iterable[Record]) -> None:
        if self._worthless:
            self._make_anew()
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

    def _make_anew(self) -> None:
        """Everything in it is in Kafka, and its disk is full: without it there is room again."""
        self.close()
        self._worthless = True
        try:
            for left in (self._path, self._path.with_name(self._path.name + "-wal")):
                left.unlink(missing_ok=True)
            self._open()
        except (OSError, ConfigurationError) as error:
            raise Unavailable(SPOOL_FAILED, "the file cannot be made anew") from error
        self._done = 0
        self._worthless = False

    def _open(self) -> None:
        try:
            # A missing folder is a volume that is not mounted: what SQLite would make instead is lost with the container.
            _made_for_us_alone(self._path)
            self._db = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise ConfigurationError("SPOOL_PATH", f"SPOOL_PATH {self._path} {_told(error)}") from error
        except OSError as error:
            raise ConfigurationError("SPOOL_PATH", f"SPOOL_PATH {self._path} {_CANNOT_OPEN}") from error

    def _prepare(self) -> None:
        # Exclusive before WAL: one process only, and no shared memory beside the file (sqlite.org/wal.html, section 8).
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        self._db.execute("BEGIN EXCLUSIVE")
        [version] = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"it was written by another version ({version})")
        if not version:  # a spool that is there is opened without a write: its disk may be full
            self._db.execute(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")
        self._db.execute("COMMIT")
        [page_bytes] = self._db.execute("PRAGMA page_size").fetchone()
        self._db.execute(f"PRAGMA max_page_count = {self._max_bytes // page_bytes}").fetchall()
        folder = os.open(self._path.parent, os.O_RDONLY)
        with suppress(OSError):  # not every file system can, and SQLite has tried
            os.fsync(folder)
        os.close(folder)


def _made_for_us_alone(path: Path) -> None:
    """The file with rights for its owner alone, also where an older release made it; SQLite gives its log the same."""
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


def _told(error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorcode", None):
        case sqlite3.SQLITE_BUSY:
            return "is in use by another process: each ingress needs a spool of its own"
        case sqlite3.SQLITE_CANTOPEN:
            return _CANNOT_OPEN
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return "is no spool, or a damaged one: keep it aside, and start with another path"
        case _:
            return f"cannot be used: {error}"


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
