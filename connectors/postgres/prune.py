"""Forgets old rows: calls by whole months, the rest row by row; never what something is still to be done about.

A month of calls is given up for good: whether one of them was counted can then not be known any more, so the month is
written down, in the transaction that drops it, and whoever asks about a call of it is told so
(connectors/operations/usage_log.py).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import asyncpg

from connectors.config.postgres_urls import with_defaults
from connectors.postgres.errors import decisions
from connectors.postgres.pool import CONNECT_S

#: Rows deleted in one transaction; how long a month's table waits for those who use it.
BATCH: Final = 5000
_LOCK_WAIT: Final = "10s"

_MONTHS = """
SELECT c.relname::text, to_date(right(c.relname::text, 7), 'YYYY_MM') AS month
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'llm_usage_log'::regclass AND c.relname ~ '^llm_usage_log_\\d{4}_\\d{2}$'
AND to_date(right(c.relname::text, 7), 'YYYY_MM') + interval '1 month' <= $1::timestamptz
ORDER BY 2
"""
_OPEN = "SELECT count(*) FROM litellm_usage_events WHERE month = $1 AND processed_at IS NULL"
_FORGET = "INSERT INTO forgotten_months (month) VALUES ($1) ON CONFLICT (month) DO UPDATE SET forgotten_at = now()"

#: What is old enough, by table. Of parts: settled, and named by no call and by no held part that is still there.
_OLD: Final = {
    "usage_parts": """
        SELECT p.ctid FROM usage_parts p LEFT JOIN usage_parts e ON e.part = p.released_in
        WHERE CASE WHEN p.event IS NULL AND p.released_in IS NOT NULL THEN e.status ELSE p.status END
            IN ('completed', 'written_off')
        AND COALESCE(e.processed_at, p.processed_at) < $1
        AND NOT EXISTS (SELECT FROM usage_parts held WHERE held.released_in = p.part)
        AND NOT EXISTS (SELECT FROM llm_usage_log u WHERE u.part = p.part)
        AND NOT EXISTS (SELECT FROM llm_usage_log u WHERE u.part = regexp_replace(p.part, '(-again)+$', ''))
    """,
    "rejected_calls": "SELECT ctid FROM rejected_calls WHERE rejected_at < $1",
    "webhook_delivery_logs": "SELECT ctid FROM webhook_delivery_logs WHERE created_at < $1",
    "unprojected_records": "SELECT ctid FROM unprojected_records WHERE noticed_at < $1",
}


@dataclass(slots=True)
class Pruned:
    """What was, or in a dry run would be, forgotten.

    Fields:
        months: of calls, `2026-01`, with how many.
        kept: months that are old enough, with how many of their calls something is still to be done about.
        rows: of the other tables.
    """

    months: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Rows altogether."""
        return sum(self.months.values()) + sum(self.rows.values())


async def prunable(url: str, before: datetime) -> Pruned:
    """What `prune` would forget now. Of parts fewer: those of months that are still there are not among them.

    Raises:
        Unavailable: Postgres does not answer, or has no tables.
    """
    found = Pruned()
    async with _connected(url) as connection:
        for table, month in await connection.fetch(_MONTHS, before):
            name = f"{month:%Y-%m}"
            if waiting := await connection.fetchval(_OPEN, month):
                found.kept[name] = waiting
            elif count := await connection.fetchval(f"SELECT count(*) FROM {table}"):  # noqa: S608  # of `_MONTHS`
                found.months[name] = count
        for table, old in _OLD.items():
            found.rows[table] = await connection.fetchval(f"SELECT count(*) FROM ({old}) AS old", before)  # noqa: S608
    return found


async def prune(url: str, before: datetime) -> Pruned:
    """Forget months of calls that ended by `before`, UTC, and other rows that are older. What is done stays done.

    Raises:
        Unavailable: Postgres does not answer, or a month's table stayed in use; repeating goes on.
    """
    done = await prunable(url, before)
    async with _connected(url) as connection:
        for name in done.months:
            await _drop(connection, datetime.fromisoformat(f"{name}-01"))
        for table, old in _OLD.items():
            done.rows[table] = await _delete(connection, table, old, before)
    return done


async def _drop(connection: Any, month: datetime) -> None:
    async with connection.transaction():
        await connection.execute(f"DROP TABLE IF EXISTS llm_usage_log_{month:%Y_%m}")
        await connection.execute(_FORGET, month.date())


async def _delete(connection: Any, table: str, old: str, before: datetime) -> int:
    """In batches; a batch may free rows that those before it named."""
    count = 0
    statement = f"DELETE FROM {table} WHERE ctid = ANY(ARRAY({old} LIMIT {BATCH}))"  # noqa: S608  # of `_OLD`
    while deleted := int((await connection.execute(statement, before)).rpartition(" ")[2]):
        count += deleted
    return count


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    options = {"timezone": "UTC", "lock_timeout": _LOCK_WAIT, "application_name": "meterbridge"}
    with decisions():
        connection = await asyncpg.connect(**with_defaults(url, timeout=CONNECT_S, server_settings=options))
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT_S)
