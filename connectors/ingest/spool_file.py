"""The file of the spool: records in the order in which they were written.

It is SQLite with a write-ahead log and an fsync at every commit. One process has the file locked; the kernel releases the lock
when the process ends in any way. The methods block, so `Spool` calls them in a thread.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from connectors.ingest.spool_salvage import is_damage, salvage
from connectors.kafka.producer import Record
from schemas.errors import ConfigurationError, Unavailable

#: The disk or `SPOOL_MAX_BYTES` is full; any other failure of the disk.
SPOOL_FULL, SPOOL_FAILED = "spool_full", "spool_failed"

_VERSION = 1
_BUSY_S = 1.0
#: The shortest time between two copies of what can be read in a damaged file, seconds: the disk may be too full for one.
_SALVAGE_EVERY_S = 10.0
_SCHEMA = "CREATE TABLE spool (id INTEGER PRIMARY KEY, topic TEXT, key TEXT, value BLOB, at_ms INTEGER)"
_INSERT = "INSERT INTO spool (topic, key, value, at_ms) VALUES (?, ?, ?, ?)"
_OLDEST = "SELECT id, topic, key, value, at_ms FROM spool WHERE id > ? ORDER BY id LIMIT ?"
_TOPICS = "SELECT topic, COUNT(*) FROM spool GROUP BY topic ORDER BY topic"
_CANNOT_OPEN = "cannot be opened: its folder has to exist and be writable"
_TOTALS = "SELECT COUNT(*), COALESCE(SUM(LENGTH(value)), 0), (SELECT at_ms FROM spool ORDER BY id LIMIT 1) FROM spool"

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


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
        self._oldest = self._newest = 0  # the ids of the oldest and the newest record; 0 = unknown, or there is none
        self._salvage_again_s = 0.0
        #: What is in the file since a part of it could not be read; the caller sets it back to None.
        self.salvaged: SpoolTotals | None = None
        self._open()

    def totals(self) -> SpoolTotals:
        """Return the totals. This reads the whole file, so it is called only at the start."""
        return SpoolTotals(*self._all_rows(_TOTALS)[0])

    def topics(self) -> dict[str, int]:
        """Return the number of records per topic; called only at the start."""
        return dict(self._all_rows(_TOPICS))

    def append(self, groups: Sequence[Sequence[Record]]) -> list[Unavailable | None]:
        """Write each group in its order; the result has an error at the index of each group that was not written.

        All groups share one fsync. If the groups do not fit together, each group is written alone.
        """
        try:
            self._insert([record for group in groups for record in group])
        except Unavailable as error:
            return [error] if len(groups) == 1 else [self.append([group])[0] for group in groups]
        return [None] * len(groups)

    def oldest(self, max_records: int, max_bytes: int) -> SpoolBatch:
        """Return the oldest records; at least one unless the file is empty. Records that cannot be read are left out, and their file is
        kept (connectors/ingest/spool_salvage.py).
        """
        return self._in_spite_of_damage(lambda: self._oldest_of_file(max_records, max_bytes))

    def _oldest_of_file(self, max_records: int, max_bytes: int) -> SpoolBatch:
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
            self._done, self._oldest = 0, last + 1
        except Unavailable:
            self._done = last
            if not self.oldest(1, 1).records:
                self._recreate()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    def _insert(self, records: Sequence[Record]) -> None:
        if self._worthless:
            self._recreate()

        def insert() -> int:
            with self._transaction():
                self._db.executemany(_INSERT, records)
                return int(self._db.execute("SELECT last_insert_rowid()").fetchone()[0]) if records else 0

        self._newest = self._in_spite_of_damage(insert) or self._newest
        self._oldest = min(self._oldest, self._newest - len(records) + 1)  # an empty file counts from one again

    def _all_rows(self, question: str) -> list[Any]:
        def ask() -> list[Any]:
            with _disk_errors(), closing(self._db.execute(question)) as rows:
                return rows.fetchall()

        return self._in_spite_of_damage(ask)

    def _in_spite_of_damage(self, work: Callable[[], _T]) -> _T:
        """Do some work with the file; if a part of the file cannot be read, do it again without this part."""
        try:
            return work()
        except Unavailable as error:
            if not is_damage(error.__cause__) or time.monotonic() < self._salvage_again_s:
                raise
        self._salvage_again_s = time.monotonic() + _SALVAGE_EVERY_S
        self._salvage()
        return work()

    def _salvage(self) -> None:
        self.close()
        after = max(self._done, self._oldest - 1)
        try:
            kept, lost = salvage(self._path, lambda path: _prepared(path, self._max_bytes), after, self._newest)
        except (OSError, sqlite3.Error, ConfigurationError) as error:
            self._open()
            _log.critical("spool_damaged", file=str(self._path), error=repr(error))
            raise Unavailable(
                SPOOL_FAILED, "a part of the file cannot be read, and the rest cannot be copied"
            ) from error
        self._done = 0
        self._open()
        _log.critical("spool_damaged", file=str(kept), count=lost)
        with _disk_errors(), closing(self._db.execute(_TOTALS)) as rows:
            self.salvaged = SpoolTotals(*rows.fetchone())

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
        self._db = _prepared(self._path, self._max_bytes)
        self._oldest, self._newest = self._id("MIN"), self._id("MAX")

    def _id(self, which: str) -> int:
        try:
            return int(self._db.execute(f"SELECT COALESCE({which}(id), 0) FROM spool").fetchone()[0])  # noqa: S608
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise ConfigurationError("SPOOL_PATH", f"SPOOL_PATH {self._path} {_sentence(error)}") from error
            return 0


def _prepared(path: Path, max_bytes: int) -> sqlite3.Connection:
    """Open the spool at `path`, or create it. Raises: ConfigurationError: it cannot be used."""
    try:
        # A missing folder is a volume that is not mounted; a file that SQLite created there would be lost with the container.
        _made_for_us_alone(path)
        db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(db, path, max_bytes)
        except BaseException:
            db.close()
            raise
    except sqlite3.Error as error:
        raise ConfigurationError("SPOOL_PATH", f"SPOOL_PATH {path} {_sentence(error)}") from error
    except OSError as error:
        raise ConfigurationError("SPOOL_PATH", f"SPOOL_PATH {path} {_CANNOT_OPEN}") from error
    return db


def _prepare(db: sqlite3.Connection, path: Path, max_bytes: int) -> None:
    # Exclusive locking before WAL: then only one process can use it, and WAL needs no shared memory (sqlite.org/wal.html,
    # section 8).
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute("BEGIN EXCLUSIVE")
    [version] = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, _VERSION):
        raise sqlite3.DatabaseError(f"it was written by another version ({version})")
    if not version:  # an existing spool is opened without a write, because its disk may be full
        db.execute(_SCHEMA)
        db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("COMMIT")
    [page_bytes] = db.execute("PRAGMA page_size").fetchone()
    db.execute(f"PRAGMA max_page_count = {max_bytes // page_bytes}").fetchall()
    folder = os.open(path.parent, os.O_RDONLY)
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
        raise Unavailable(
            SPOOL_FULL if full else SPOOL_FAILED, str(getattr(error, "sqlite_errorname", type(error).__name__))
        ) from error


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
