"""Deletes the calls of one month's table. Readers and writers of the log wait only for a short lock, independent of the
number of calls.

1. The table gets a trigger that counts further writes. This waits for the writers that are not finished. 2. The calls
to delete and the calls to keep are read. This may take long; other sessions read and write the table in the meantime.
3. Under a lock: if nothing was written since step 1, and no projected event corrects the calls, the calls are deleted,
and their months are stored as forgotten. If something was written, all steps are repeated, so that no unread call is
deleted.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from datetime import date
from typing import Any, Final, NamedTuple, TypeVar

import asyncpg

from schemas.errors import Unavailable
from schemas.reasons import POSTGRES_BUSY

_T = TypeVar("_T")

#: The maximum number of reads of a month that is being written to, and of attempts to get a lock.
_READINGS: Final = 5
_LOCKS: Final = 10
#: Seconds between two attempts to get a lock, in which the waiting sessions continue.
_PAUSE_S: Final = 1.0
#: Other sessions queue behind a waiting lock, so this also limits their waiting time.
_SHORT: Final = "SET LOCAL lock_timeout = '2s'"

#: Calls of the month $1 whose work is not finished: a step is still missing, or their event was delivered but is not
#: projected yet, or they are being corrected.
OPEN: Final = """
SELECT (SELECT count(*) FROM litellm_usage_events WHERE month = $1 AND processed_at IS NULL)
    + (
        SELECT count(*) FROM llm_usage_log u JOIN usage_parts p ON p.part = u.part
        WHERE u.month = $1 AND u.part <> '' AND p.status = 'completed' AND p.event IS NULL AND p.released_in IS NULL
    )
    + (SELECT count(*) FROM corrected_parts c JOIN llm_usage_log u ON u.part = c.part WHERE NOT c.done AND u.month = $1)
"""
_ENDED: Final = "date_trunc('month', ended_at AT TIME ZONE 'UTC')::date"
#: Calls that ended before the month $1, but not in one of the months $2, whose calls are kept.
_GONE: Final = f"{_ENDED} < $1::date AND {_ENDED} <> ALL ($2::date[])"
#: The calls that would be deleted, by the month of their end.
COUNT: Final = f"SELECT {_ENDED} AS ended, count(*) FROM {{table}} WHERE {_GONE} GROUP BY 1"  # noqa: S608  # our own words
_ANY: Final = f"SELECT EXISTS (SELECT FROM {{table}} WHERE {_GONE})"  # noqa: S608
_STAYING: Final = f"SELECT identity FROM {{table}} WHERE NOT ({_GONE})"  # noqa: S608

_WATCH: Final = """
CREATE OR REPLACE TRIGGER watched AFTER INSERT OR UPDATE OR DELETE ON {table}
FOR EACH ROW EXECUTE FUNCTION count_late_call()
"""
_UNWATCH: Final = "DROP TRIGGER IF EXISTS watched ON {table}"
_WRITTEN: Final = "SELECT last_value, is_called FROM late_call_writes"
_FORGET: Final = """
INSERT INTO forgotten_months (month) SELECT unnest($1::date[]) ON CONFLICT (month) DO UPDATE SET forgotten_at = now()
"""
#: Uses the primary key. Only few rows are kept: calls that ran past the end of the month.
_COPY: Final = "CREATE TEMP TABLE staying ON COMMIT DROP AS SELECT * FROM {table} WHERE identity = ANY ($1::bytea[])"


class Forgotten(NamedTuple):
    """The result for one table.

    Fields:
        ended: deleted calls by the month of their end.
        waiting: calls that still or again need work; if there are any, no call is deleted.
    """

    ended: Counter[date]
    waiting: int


class _Read(NamedTuple):
    ended: Counter[date]
    staying: list[bytes]


async def forget_month(connection: Any, table: str, month: date, until: date, kept: Collection[date]) -> Forgotten:
    """Delete the calls of a table that ended before `until`, but not in one of the months `kept`.

    Args:
        connection: of the tables' owner, not in a transaction.
        table: a table of the usage log, whose name is not input; it has the calls that began in `month`.

    Raises:
        Unavailable: `postgres_busy`: the table was written to during each reading. Nothing is deleted.
        asyncpg.LockNotAvailableError: the table was in use at every attempt.
    """
    which = until, list(kept)
    if not await connection.fetchval(_ANY.format(table=table), *which):
        return Forgotten(Counter(), 0)
    for _ in range(_READINGS):
        written = await _tried(lambda: _watched(connection, table))
        if waiting := await connection.fetchval(OPEN, month):
            await _tried(lambda: _unwatched(connection, table))
            return Forgotten(Counter(), waiting)
        ended = Counter(dict(await connection.fetch(COUNT.format(table=table), *which)))
        read = _Read(ended, [one for (one,) in await connection.fetch(_STAYING.format(table=table), *which)])
        done = await _tried(lambda: _deleted(connection, table, month, read, written))  # noqa: B023  # called at once
        if done is not None:
            return done
    raise Unavailable(POSTGRES_BUSY, f"the calls of {month:%Y-%m} are being written")


async def _watched(connection: Any, table: str) -> Any:
    """Count writes from now on; return the present count."""
    async with connection.transaction():
        await connection.execute(_SHORT)
        await connection.execute(_WATCH.format(table=table))
        return await connection.fetchrow(_WRITTEN)


async def _unwatched(connection: Any, table: str) -> None:
    async with connection.transaction():
        await connection.execute(_SHORT)
        await connection.execute(_UNWATCH.format(table=table))


async def _deleted(connection: Any, table: str, month: date, read: _Read, written: Any) -> Forgotten | None:
    """Delete the calls; None: something was written in the meantime, and nothing was deleted."""
    async with connection.transaction():
        await connection.execute(_SHORT)
        # The locks are taken in the order of all queries about calls; another order could cause a deadlock.
        await connection.execute(f"LOCK TABLE ONLY llm_usage_log, ONLY {table} IN ACCESS EXCLUSIVE MODE")
        if await connection.fetchrow(_WRITTEN) != written:
            return None
        # An event that was projected in the meantime has written to tables without a trigger, and its calls may need a
        # correction.
        if waiting := await connection.fetchval(OPEN, month):
            await connection.execute(_UNWATCH.format(table=table))
            return Forgotten(Counter(), waiting)
        await connection.execute(_FORGET, sorted({*read.ended, month}))
        if not read.staying:
            await connection.execute(f"DROP TABLE {table}")
            return Forgotten(read.ended, 0)
        await connection.execute("SET LOCAL enable_seqscan = off")
        await connection.execute(_COPY.format(table=table), read.staying)
        await connection.execute(f"TRUNCATE {table}")
        await connection.execute(_UNWATCH.format(table=table))
        await connection.execute(f"INSERT INTO {table} SELECT * FROM staying")  # noqa: S608  # of the caller's own words
        return Forgotten(read.ended, 0)


async def _tried(step: Callable[[], Awaitable[_T]]) -> _T:
    """Repeat a transaction while other sessions hold its lock. Raises: asyncpg.LockNotAvailableError: the lock was held
    at every attempt.
    """
    for _ in range(_LOCKS - 1):
        with suppress(asyncpg.LockNotAvailableError):
            return await step()
        await asyncio.sleep(_PAUSE_S)
    return await step()
