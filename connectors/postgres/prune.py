"""Deletes old rows: calls by whole months, other tables row by row. It keeps rows that still need work.

The age of a call is the age of the month of its end (UTC); billing, sums and exports use this month. Its row is in the
table of the month of its start. So a month's table keeps the calls that ended in a later month until that month is
deleted too.

Afterwards nothing shows whether a call of a deleted month was counted. So the transaction that deletes the calls also
stores the month, and queries about such a call return that its month was deleted (connectors/operations/usage_log.py).
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from connectors.postgres.forget_month import COUNT, OPEN, forget_month
from connectors.postgres.pool import connected

#: Rows deleted in one transaction.
BATCH: Final = 5000
#: Settings of the session; `lock_timeout` limits the wait for a table that is in use.
_SESSION: Final = {"lock_timeout": "10s", "application_name": "meterbridge"}

#: The tables of months that began before a moment.
_MONTHS = """
SELECT c.relname::text, to_date(right(c.relname::text, 7), 'YYYY_MM') AS month
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'llm_usage_log'::regclass AND c.relname ~ '^llm_usage_log_\\d{4}_\\d{2}$'
AND to_date(right(c.relname::text, 7), 'YYYY_MM') < $1::date
ORDER BY 2
"""

#: Which rows are old enough, by table. A part must be settled, and no call and no held part may refer to it.
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
    "corrected_parts": """
        SELECT c.ctid FROM corrected_parts c
        WHERE c.done AND c.found_at < $1 AND NOT EXISTS (SELECT FROM usage_parts p WHERE p.part = c.part)
    """,
    "rejected_calls": "SELECT ctid FROM rejected_calls WHERE rejected_at < $1",
    "webhook_delivery_logs": "SELECT ctid FROM webhook_delivery_logs WHERE created_at < $1",
    "unprojected_records": "SELECT ctid FROM unprojected_records WHERE noticed_at < $1",
    # A reservation that the function settled shows that its call is paid, even if the call is projected again.
    "credit_reservations": """
        SELECT r.ctid FROM credit_reservations r
        WHERE COALESCE(r.settled_at, r.released_at) < $1
        AND NOT EXISTS (SELECT FROM credit_transactions t WHERE t.idempotency_key = 'settle:' || r.call_id)
    """,
}


@dataclass(slots=True)
class Pruned:
    """The deleted rows; in a dry run, the rows that would be deleted.

    Fields:
        months: calls by the month of their end, e.g. `2026-01`.
        kept: old months that are kept, with how many of their calls still need work.
        rows: deleted rows of the other tables.
    """

    months: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All deleted rows."""
        return sum(self.months.values()) + sum(self.rows.values())


async def prunable(url: str, before: datetime) -> Pruned:
    """Return what `prune` would delete now. It may return fewer parts, because it does not count parts of months that
    still exist.

    Raises:
        Unavailable: Postgres does not answer, or has no tables.
    """
    pruned = Pruned()
    async with connected(url, **_SESSION) as connection:
        tables = await _tables(connection, before)
        for name, waiting in tables.kept.items():
            pruned.kept[f"{name:%Y-%m}"] = waiting
        ended: Counter[date] = Counter()
        for table in tables.old:
            ended.update(dict(await connection.fetch(COUNT.format(table=table), tables.until, list(tables.kept))))
        pruned.months = {f"{month:%Y-%m}": ended[month] for month in sorted(ended)}
        for table, old in _OLD.items():
            pruned.rows[table] = await connection.fetchval(f"SELECT count(*) FROM ({old}) AS old", before)  # noqa: S608
    return pruned


async def prune(url: str, before: datetime) -> Pruned:
    """Delete calls of months that were over at `before` (UTC), and other rows that are older than it.

    Raises:
        Unavailable: Postgres does not answer, or a month's table stayed in use. Repeating it deletes the rest.
    """
    done = Pruned()
    async with connected(url, **_SESSION) as connection:
        tables = await _tables(connection, before)
        ended: Counter[date] = Counter()
        # The latest first: calls of an older table that ended in a deleted month are deleted after that month.
        for table, month in reversed(tables.old.items()):
            forgotten = await forget_month(connection, table, month, tables.until, tables.kept)
            ended += forgotten.ended
            if forgotten.waiting:  # since `_tables` read it
                tables.kept[month] = forgotten.waiting
        done.months = {f"{month:%Y-%m}": ended[month] for month in sorted(ended)}
        done.kept = {f"{month:%Y-%m}": tables.kept[month] for month in sorted(tables.kept)}
        for table, old in _OLD.items():
            done.rows[table] = await _delete(connection, table, old, before)
    return done


class _Tables(NamedTuple):
    """The months' tables that are old.

    Fields:
        until: the first day of the current month.
        old: the month of each table whose calls need no work, oldest first.
        kept: the other months, with how many calls need work.
    """

    until: date
    old: dict[str, date]
    kept: dict[date, int]


async def _tables(connection: Any, before: datetime) -> _Tables:
    tables = _Tables(before.astimezone(UTC).date().replace(day=1), {}, {})
    for table, month in await connection.fetch(_MONTHS, tables.until):
        if waiting := await connection.fetchval(OPEN, month):
            tables.kept[month] = waiting
        else:
            tables.old[table] = month
    return tables


async def _delete(connection: Any, table: str, old: str, before: datetime) -> int:
    """Delete in batches; a batch may make further rows deletable, because nothing refers to them any more."""
    count = 0
    statement = f"DELETE FROM {table} WHERE ctid = ANY(ARRAY({old} LIMIT {BATCH}))"  # noqa: S608  # of `_OLD`
    while deleted := int((await connection.execute(statement, before)).rpartition(" ")[2]):
        count += deleted
    return count
