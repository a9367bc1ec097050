"""Writes the rows of the projector: the rows of a fetched batch and its offset in one Postgres transaction."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from connectors.postgres import rows_of_calls, rows_of_events, rows_of_management
from connectors.postgres.corrections import CALLS, Moved, calls_of, correct, corrected, moved_parts
from connectors.postgres.debits import debit
from connectors.postgres.pool import Database
from connectors.postgres.projected_calls import MONTH, doubled_calls, write_calls, write_usage
from connectors.postgres.rows import Rows, SkippedRecord
from connectors.postgres.rows_of_calls import Resolved
from connectors.postgres.rows_of_management import Removed
from connectors.postgres.sql_files import rows_in, sql
from schemas.moments import MAX_US
from schemas.reasons import REPEATED, ROW_REFUSED, UNREADABLE, WRITTEN_OFF
from schemas.tables import AUDIT, CREDITS, CUSTOMERS, DELIVERIES, EVENTS, ORGS, RECEIPTS, REJECTED, USAGE
from schemas.topics import TopicNames
from streams.agents.projector import PartitionPosition, Projected
from streams.core.metering.customer_key import PINNED_BY_KEY

log = structlog.get_logger(__name__)

_PLACE = "SELECT topic_id, next FROM projector_offsets WHERE topic = $1 AND partition = $2"
_BEGIN = """
INSERT INTO projector_offsets (topic, partition, topic_id, next) VALUES ($1, $2, $3, $4)
ON CONFLICT (topic, partition) DO NOTHING
"""
#: Waits for an open transaction of another owner, and then no longer finds the row at `next`. Takes the lock of calls
#: before any other work on them (connectors/postgres/corrections.py).
_MOVE = f"""
UPDATE projector_offsets SET next = $4 WHERE topic = $1 AND partition = $2 AND next = $3 RETURNING {CALLS}
"""  # noqa: S608  # our own words
#: The moment from which the usage log is complete: always if the topic still has its first record, otherwise from the
#: next record on. Calls that were missed before stay missing, unless the same topic is read from its first record
#: again.
_BEGIN_LOG = """
INSERT INTO log_completeness AS c (partition, topic_id, since)
VALUES ($1, $2, CASE WHEN $3::bigint = 0 THEN '-infinity'::timestamptz ELSE 'infinity'::timestamptz END)
ON CONFLICT (partition) DO UPDATE SET
    topic_id = EXCLUDED.topic_id,
    since = CASE WHEN c.topic_id = EXCLUDED.topic_id THEN EXCLUDED.since ELSE 'infinity'::timestamptz END
"""
_FIRST_SEEN = """
UPDATE log_completeness SET since = to_timestamp($2 / 1000.0) WHERE partition = $1 AND since = 'infinity'
"""
#: Stores the place and the reason of a record without a row. If the record is read again, the new reason replaces the
#: old one.
_ASIDE = """
INSERT INTO unprojected_records (topic, partition, "offset", recorded_ms, reason, problem)
SELECT $1, $2, "offset", recorded_ms, $3, problem
FROM unnest($4::bigint[], $5::bigint[], $6::text[]) AS given ("offset", recorded_ms, problem)
ON CONFLICT (topic, partition, "offset") DO UPDATE SET
    reason = EXCLUDED.reason, problem = EXCLUDED.problem, noticed_at = now()
"""
#: A call without a row was counted by the meter, so the usage log is not complete before it.
_GAP = """
UPDATE log_completeness
SET since = GREATEST(since, LEAST(now(), to_timestamp($2 / 1000.0)))
WHERE partition = $1
"""
#: Forgets the unprojected records of offsets that are projected now.
_MENDED = """
DELETE FROM unprojected_records WHERE topic = $1 AND partition = $2 AND "offset" >= $3 AND "offset" < $4
"""
_MONTHS = "SELECT ensure_usage_month(month::date) FROM unnest($1::text[]) AS wanted (month)"

_Write = Callable[[Any, int, list[tuple[Any, ...]]], Awaitable[int]]


_EVENTS_SQL: Final = sql("events.sql")
_REJECTED_SQL: Final = sql("rejected.sql")
_RESOLVED_SQL: Final = sql("resolved.sql")
#: Deletes rows whose records were removed and not written again since.
_CUSTOMERS_GONE: Final = """
DELETE FROM customer_records AS c USING unnest($1::text[], $2::bigint[]) AS gone (key, at)
WHERE c.litellm_customer_id = gone.key AND c."offset" < gone.at
"""
_ORGS_GONE: Final = """
DELETE FROM organisations AS o USING unnest($1::text[], $2::bigint[]) AS gone (key, at)
WHERE o.org_id = gone.key AND o."offset" < gone.at
"""
#: Indexes of columns: the state in receipt rows, and in event rows whether a rate card priced the event.
_STATUS, _RATED = 1, -1


class PostgresProjection:
    """`streams.agents.projector.Projection` on Postgres.

    Every statement can be repeated, and the topics can be projected in any order: usage, events, receipts and
    rejections write different columns (migrations/0002_event_queue.sql), and the other topics write different tables.

    Args:
        user_kinds: kinds of customer ids that name a user whose credits pay.
    """

    def __init__(self, database: Database, topics: TopicNames, user_kinds: Sequence[str] = PINNED_BY_KEY) -> None:
        self._database = database
        self._user_kinds = user_kinds
        self._timed: set[int] = set()
        self._ways: Mapping[str, tuple[str, Callable[[Sequence[ConsumerRecord]], Rows], _Write]] = {
            topics.enriched: (USAGE, rows_of_calls.usage_rows, write_usage),
            topics.events: (EVENTS, rows_of_events.event_rows, _write_events),
            topics.receipts: (RECEIPTS, rows_of_events.receipt_rows, _writes(sql("receipts.sql"))),
            topics.rejected: (REJECTED, rows_of_calls.rejected_rows, _write_rejected),
            topics.customers: (
                CUSTOMERS,
                rows_of_management.customer_rows,
                _writes_latest(sql("customers.sql"), _CUSTOMERS_GONE),
            ),
            topics.orgs: (ORGS, rows_of_management.org_rows, _writes_latest(sql("organisations.sql"), _ORGS_GONE)),
            topics.audit: (AUDIT, rows_of_management.audit_rows, _writes(sql("audit.sql"))),
            topics.deliveries: (
                DELIVERIES,
                rows_of_management.delivery_rows,
                _writes(sql("deliveries.sql"), with_partition=True),
            ),
        }

    async def place(self, tp: TopicPartition) -> PartitionPosition | None:
        """Return the position of a partition; None = it has no position yet."""
        self._timed.discard(tp.partition)
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_PLACE, tp.topic, tp.partition)
        return None if row is None else PartitionPosition(*row)

    async def begin(self, tp: TopicPartition, place: PartitionPosition) -> PartitionPosition:
        """Store the first position of a partition, unless another process has done it; returns the stored one."""
        async with self._database.connection() as connection, connection.transaction():
            begun = await connection.execute(_BEGIN, tp.topic, tp.partition, *place)
            if begun == "INSERT 0 1" and self._ways[tp.topic][0] == USAGE:
                await connection.execute(_BEGIN_LOG, tp.partition, *place)
            return PartitionPosition(*await connection.fetchrow(_PLACE, tp.topic, tp.partition))

    async def project(
        self, tp: TopicPartition, expected: int, following: int, records: Sequence[ConsumerRecord]
    ) -> Projected | None:
        """Write all rows of `records` and the partition's new position; None if its position is not `expected`."""
        table, rows_of, write = self._ways[tp.topic]
        rows, aside = rows_of(records)
        async with self._database.connection() as connection:
            if table == USAGE and rows:
                # This runs before the transaction, because the transaction would hold the lock on the table until its
                # end.
                await connection.execute(_MONTHS, sorted({row[MONTH] for row in rows}))
            await connection.execute("BEGIN")
            if not await self._moved(connection, tp, expected, following):
                return None
            if table == USAGE and tp.partition not in self._timed:
                await connection.execute(_FIRST_SEEN, tp.partition, _sane_ms(records[0].timestamp))
            written = await write(connection, tp.partition, rows) if rows and table != USAGE else 0
            again: list[tuple[Any, ...]] = []
            if table == USAGE:
                written, again = await write_calls(connection, tp.partition, rows)
            doubled = await doubled_calls(connection, rows, written) if table == USAGE and rows else {}
            corrections = await self._corrected(connection, tp, expected, following, rows)
            if corrections is None:
                return None
            await self._keep(connection, tp, range(expected, following), UNREADABLE, aside)
            latest = list({(row[0], row[MONTH]): row for row in rows}.values()) if table == USAGE else []
            debited = await debit(connection, latest, self._user_kinds, again) if latest else None
            await connection.execute("COMMIT")
        if table == USAGE:
            self._timed.add(tp.partition)
        skipped = Counter({UNREADABLE: len(aside)})
        if table == USAGE:
            skipped[REPEATED] = len(rows) - written
        if doubled:
            log.warning("calls_billed_twice", partition=tp.partition, see="meterbridge reconcile", **doubled)
        counts = {table: written}
        if debited is not None or corrections:
            counts[CREDITS] = corrections if debited is None else debited.calls
        return Projected(counts, +skipped, doubled, {} if debited is None else debited.refused)

    async def _corrected(
        self, connection: Any, tp: TopicPartition, expected: int, following: int, rows: Sequence[tuple[Any, ...]]
    ) -> int | None:
        """Correct the calls that were written off or that these events bill differently from their counted amounts;
        return their number.

        If there are such calls, commit the rows, and then one chunk of calls after the other. At the end, a transaction
        that moves the position is open. None: the position is no longer `expected`.
        """
        moved = await _moved_by(connection, self._ways[tp.topic][0], rows)
        if not moved.parts:
            return 0
        await connection.execute(_MOVE, tp.topic, tp.partition, following, expected)
        await connection.execute("COMMIT")
        count = 0
        async for calls in calls_of(connection, moved):
            await connection.execute("BEGIN")
            if not await self._moved(connection, tp, expected, expected):
                return None
            count += await correct(connection, calls, self._user_kinds, prepaid=moved.prepaid)
            await connection.execute("COMMIT")
        await connection.execute("BEGIN")
        if not await self._moved(connection, tp, expected, following):
            return None
        await corrected(connection, moved)
        return count

    async def pass_over(
        self, tp: TopicPartition, expected: int, record: ConsumerRecord, problem: str
    ) -> Projected | None:
        """Store that Postgres refuses a record, and the partition's new position; None if its position is not `expected`."""
        async with self._database.connection() as connection:
            await connection.execute("BEGIN")
            if not await self._moved(connection, tp, expected, record.offset + 1):
                return None
            aside = [SkippedRecord(record.offset, record.timestamp, problem)]
            await self._keep(connection, tp, range(expected, record.offset + 1), ROW_REFUSED, aside)
            await connection.execute("COMMIT")
        return Projected({}, {ROW_REFUSED: 1})

    async def _moved(self, connection: Any, tp: TopicPartition, expected: int, following: int) -> bool:
        if await connection.execute(_MOVE, tp.topic, tp.partition, expected, following) == "UPDATE 1":
            return True
        await connection.execute("ROLLBACK")
        return False

    async def _keep(
        self, connection: Any, tp: TopicPartition, offsets: range, reason: str, aside: Sequence[SkippedRecord]
    ) -> None:
        await connection.execute(_MENDED, tp.topic, tp.partition, offsets.start, offsets.stop)
        if aside:
            await connection.execute(_ASIDE, tp.topic, tp.partition, reason, *zip(*aside, strict=True))
            if self._ways[tp.topic][0] == USAGE:
                await connection.execute(_GAP, tp.partition, _sane_ms(max(record.recorded_ms for record in aside)))


def _sane_ms(at_ms: int) -> int:
    """Limit a record time to the range of Postgres; Kafka stores any number that a producer sends."""
    return min(max(at_ms, 0), MAX_US // 1000 - 1)


async def _moved_by(connection: Any, table: str, rows: Sequence[tuple[Any, ...]]) -> Moved:
    if table == EVENTS:
        rated = any(row[_RATED] for row in rows)
        return await moved_parts(connection, [row[0] for row in rows], rated=rated)
    gone = [row[0] for row in rows if row[_STATUS] == WRITTEN_OFF] if table == RECEIPTS else []
    return await moved_parts(connection, gone, rated=False)


async def _write_events(connection: Any, _partition: int, rows: list[tuple[Any, ...]]) -> int:
    *columns, _rated = zip(*rows, strict=True)
    await connection.execute(_EVENTS_SQL, *columns)
    return sum(released_in is None for _, released_in, *_ in rows)


async def _write_rejected(connection: Any, partition: int, rows: list[tuple[Any, ...]]) -> int:
    refused = [row for row in rows if not isinstance(row, Resolved)]
    resolved = {row.offset: row for row in rows if isinstance(row, Resolved)}
    written = 0
    if refused:
        written = rows_in(await connection.execute(_REJECTED_SQL, partition, *zip(*refused, strict=True)))
    if resolved:
        await connection.execute(_RESOLVED_SQL, partition, *zip(*resolved.values(), strict=True))
    return written


def _writes(statement: str, *, with_partition: bool = False) -> _Write:
    """Writes rows with one statement, whose arguments are the columns; before them the partition, if it needs it."""

    async def write(connection: Any, partition: int, rows: list[tuple[Any, ...]]) -> int:
        first = (partition,) if with_partition else ()
        return rows_in(await connection.execute(statement, *first, *zip(*rows, strict=True)))

    return write


def _writes_latest(save: str, remove: str) -> _Write:
    """Writes the latest record of each key: one statement saves rows, the other one deletes those of removed records."""

    async def write(connection: Any, _partition: int, rows: list[tuple[Any, ...]]) -> int:
        gone = [row for row in rows if isinstance(row, Removed)]
        there = [row for row in rows if not isinstance(row, Removed)]
        written = 0
        for statement, some in ((save, there), (remove, gone)):
            if some:
                written += rows_in(await connection.execute(statement, *zip(*some, strict=True)))
        return written

    return write
