"""Makes a spool again from one of which a part cannot be read: a page on a bad sector, or one that another program has overwritten.

What can be read is kept, in its order. The damaged file stays beside the new one, for a person.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

#: What SQLite calls a page that cannot be read or has no sense.
_DAMAGE: Final = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
}
_FROM: Final = "SELECT id, topic, key, value, at_ms FROM spool WHERE id >= ? ORDER BY id"
_ONE: Final = "SELECT id, topic, key, value, at_ms FROM spool WHERE id = ?"
_INSERT: Final = "INSERT INTO spool (id, topic, key, value, at_ms) VALUES (?, ?, ?, ?, ?)"
#: A record has more bytes than this in the file. It bounds the search for the next record that can be read.
_LEAST_BYTES: Final = 64
_AT_ONCE: Final = 1000

Row = tuple[int, str, str | None, bytes, int]


class Salvage(NamedTuple):
    """What was done.

    Fields:
        kept: the damaged file, under its new name.
        lost: the number of records that cannot be read; too small if the first page of them cannot be read after a restart.
    """

    kept: Path
    lost: int


def is_damage(error: BaseException | None) -> bool:
    """Return whether an error of SQLite means that a part of the file cannot be read."""
    code = getattr(error, "sqlite_errorcode", None)
    return code in _DAMAGE or (isinstance(code, int) and code & 0xFF == sqlite3.SQLITE_CORRUPT)


def salvage(path: Path, make: Callable[[Path], sqlite3.Connection], after: int, newest: int) -> Salvage:
    """Replace the closed spool at `path` by one with the records that can be read, with the ids that they have. An end of the process
    at any moment leaves a spool at `path`.

    Args:
        make: makes an empty spool at a path.
        after: records up to this id are not needed any more.
        newest: the id of the newest record; 0 = unknown.

    Raises:
        sqlite3.Error, OSError: the disk is full, for example; nothing was changed.
    """
    fresh, kept = path.with_name(path.name + ".salvaged"), path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    _removed(fresh)
    lost, last, found = 0, after, False
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as damaged, closing(make(fresh)) as into:
            damaged.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            rows = _readable(damaged, after + 1, newest or after + path.stat().st_size // _LEAST_BYTES)
            while some := list(islice(rows, _AT_ONCE)):
                into.execute("BEGIN IMMEDIATE")
                into.executemany(_INSERT, some)
                into.execute("COMMIT")
                for number, *_ in some:
                    lost += number - last - 1 if last or found else 0
                    last, found = number, True
        if any(_log_of(one).exists() for one in (path, fresh)):
            raise OSError("the log of the spool cannot be written into it")
        os.link(path, kept)
        fresh.replace(path)
    except BaseException:
        _removed(fresh)
        raise
    return Salvage(kept, max(1, lost + max(0, newest - last)))


def _readable(damaged: sqlite3.Connection, begin: int, last: int) -> Iterator[Row]:
    """Yield the records from the id `begin` to the id `last` that can be read."""
    while begin <= last:
        try:
            for row in damaged.execute(_FROM, (begin,)):
                yield row
                begin = row[0] + 1
            return
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
        # One by one: the module reads a row ahead, so the last one before the damage is missing too. A search by id does not touch the
        # damaged page once the id is behind it.
        is_behind = False
        for begin in range(begin, last + 1):  # noqa: B020  # it goes on behind the damage
            try:
                row = damaged.execute(_ONE, (begin,)).fetchone()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                is_behind = True
                continue
            if row is not None:
                yield row
                if is_behind:
                    break
        begin += 1


def _removed(path: Path) -> None:
    for one in (path, _log_of(path)):
        one.unlink(missing_ok=True)


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
