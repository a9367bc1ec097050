"""Verifies the audit log: the chain of hashes in the topic, and the rows in Postgres against the topic's lines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from connectors.access.audit_chain import AuditLine, ChainHead
from connectors.access.audit_tail import Tail
from connectors.access.audit_verify import AuditVerdict, verified
from connectors.config.kafka_connection import KafkaConnection
from connectors.postgres.pool import Database
from connectors.postgres.rows_of_management import audit_rows
from schemas.moments import HOUR_US, to_datetime

#: The action of a line that begins a new topic (docs/adr/0053).
RECOVER: Final = "recover"
ROW_CHANGED, ROW_MISSING, ROW_FORGED = "row_changed", "row_missing", "row_forged"
_BATCH: Final = 500
_NEXT = "SELECT next FROM projector_offsets WHERE topic = $1 AND partition = 0"
_IDS = "SELECT audit_id, at FROM audit_log ORDER BY at, audit_id"
_ROWS = """
SELECT
    audit_id, at, actor, action, target, reason, count, cost_usd, before, after,
    COALESCE(request_id, '') AS request_id, COALESCE(address, '') AS address
FROM audit_log WHERE audit_id = ANY($1)
"""


@dataclass(frozen=True, slots=True)
class RowProblem:
    """The first row that differs from its line.

    Fields:
        kind: `row_changed`, `row_missing`, or `row_forged` (the row has no line).
    """

    kind: str
    audit_id: str
    detail: str


@dataclass(slots=True)
class _Stored:
    """A line as a Kafka record, for `audit_rows`."""

    offset: int
    value: bytes | None
    timestamp: int = 0
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def topic_verified(
    kafka: KafkaConnection, topic: str, noted: ChainHead | None = None
) -> tuple[AuditVerdict, list[AuditLine]]:
    """Verify the chain of hashes; return the verdict and the topic's lines. Raises: Unavailable."""
    tail = Tail(kafka, topic)
    try:
        lines, from_the_beginning = tail.whole()
    finally:
        tail.close()
    return verified(lines, noted, from_the_beginning=from_the_beginning), lines


def latest_verified(kafka: KafkaConnection, topic: str, most: int) -> AuditVerdict:
    """Verify the chain of hashes in the last `most` lines. Raises: Unavailable."""
    tail = Tail(kafka, topic)
    try:
        lines, from_the_beginning = tail.latest(most)
    finally:
        tail.close()
    return verified(lines, from_the_beginning=from_the_beginning)


async def seen_in_table(topic: str, database: Database) -> tuple[int, dict[str, datetime]]:
    """Return the projector's next offset in the audit topic, and the ids of all rows. Call this before the topic is
    read.

    Raises:
        Unavailable: Postgres does not answer.
    """
    async with database.connection() as connection:
        upto = await connection.fetchval(_NEXT, topic)
        return upto or 0, {row["audit_id"]: row["at"] for row in await connection.fetch(_IDS)}


async def table_verified(
    database: Database, lines: Sequence[AuditLine], upto: int, ids: dict[str, datetime], *, from_the_beginning: bool
) -> RowProblem | None:
    """Find the first difference between the rows and the topic's lines.

    Args:
        upto, ids: the result of `seen_in_table`. Rows whose lines have expired in the topic, or were lost with it before
            `meterbridge recover`, cannot be checked.
    """
    known = [line for line in lines if line.record is not None]
    named = {line.record.audit_id for line in known if line.record is not None}
    since = None if from_the_beginning or not known else known[0].record
    lost_us = max((line.record.at for line in known if line.record and line.record.action == RECOVER), default=0)
    for audit_id, at in ids.items():
        expired = (since is not None and at < to_datetime(since.at + HOUR_US)) or at < to_datetime(lost_us)
        if audit_id not in named and not expired:
            return RowProblem(ROW_FORGED, audit_id, "no line of the topic has this id")
    for start in range(0, len(known), _BATCH):
        batch = known[start : start + _BATCH]
        if (problem := await _compared(database, batch, upto)) is not None:
            return problem
    return None


async def _compared(database: Database, batch: Sequence[AuditLine], upto: int) -> RowProblem | None:
    lines_by_id: dict[str, list[tuple[Any, ...]]] = {}
    for line in batch:
        for row in audit_rows([_Stored(line.offset, line.value)]).rows:
            lines_by_id.setdefault(row[0], []).append(_of_line(row))
    async with database.connection() as connection:
        rows_by_id = {row["audit_id"]: _of_table(row) for row in await connection.fetch(_ROWS, list(lines_by_id))}
    for line in batch:
        audit_id = "" if line.record is None else line.record.audit_id
        if audit_id not in lines_by_id:
            continue
        if audit_id not in rows_by_id:
            if line.offset < upto:
                return RowProblem(ROW_MISSING, audit_id, f"the line at offset {line.offset} has no row any more")
        elif rows_by_id[audit_id] not in lines_by_id[audit_id]:
            return RowProblem(ROW_CHANGED, audit_id, f"the row is not what the line at offset {line.offset} says")
    return None


_UNREADABLE: Final = object()


def _of_line(row: tuple[Any, ...]) -> tuple[Any, ...]:
    audit_id, at_us, actor, action, target, reason, count, cost, before, later, request_id, address = row
    moment = to_datetime(at_us)
    return (
        *(audit_id, moment, actor, action, _json(target), reason, count, Decimal(cost)),
        *(_json(before), _json(later), request_id, address),
    )


def _of_table(row: Any) -> tuple[Any, ...]:
    columns = dict(row)
    for name in ("target", "before", "after"):
        columns[name] = _json(columns[name])
    return tuple(columns.values())


def _json(text: str | None) -> Any:
    """Parse the value for a comparison, because Postgres orders members and writes numbers in its own way.

    A value that Python cannot parse, because of its depth, is not compared: it must not end the check of the other lines.
    """
    try:
        return None if text is None else json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        return _UNREADABLE
