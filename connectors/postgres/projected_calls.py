"""Writes the rows of calls: anew if a rebuilt ledger has counted them again, and with what may be billed twice."""

from operator import itemgetter
from typing import Any, Final

from connectors.postgres.rows_of_calls import (
    CountedCall,
    billed_twice,
    counted_by_ledgers,
    is_recounted,
    ledger_of,
    parts_billed,
)
from connectors.postgres.sql_files import rows_in, sql
from schemas.reasons import BRIDGE, COPY, JOB
from streams.core.metering.decisions import REJECTED

_USAGE: Final = sql("usage.sql")
BRIDGED: Final = sql("bridged.sql")
JOBS: Final = sql("jobs.sql")
_COPIES: Final = sql("copies.sql")
_RECOUNTED: Final = sql("recounted.sql")
#: What was decided about calls of this partition that are in a part: the fields of `CountedCall` before the ledger.
_COUNTED: Final = """
SELECT log.identity, log.month::text, log.decision, log.part, log.raw_offset, log.held, log.org_id, log.external_subscription_id,
    log.cost_usd, log.billed_usd, log.rate, log.price_usd
FROM unnest($1::bytea[], $2::text[]) AS given (identity, month)
JOIN llm_usage_log log ON log.identity = given.identity AND log.month = given.month::date
WHERE log.raw_partition = $3 AND log.part <> ''
"""
#: Indexes of columns in a usage row.
MONTH, _DECISION = 1, 6


async def write_usage(connection: Any, partition: int, rows: list[tuple[Any, ...]]) -> int:
    """Write usage rows with different keys; return how many are new or changed."""
    # In the order of event_prices.sql, so that two transactions that write the same calls cannot deadlock.
    *columns, offsets, _ledgers = zip(*sorted(rows, key=itemgetter(0, 1)), strict=True)
    written: int = await connection.fetchval(_USAGE, *columns, partition, offsets)
    return written


async def write_calls(
    connection: Any, partition: int, found: list[tuple[Any, ...]]
) -> tuple[int, list[tuple[Any, ...]]]:
    """Write calls, those that a rebuilt ledger has rejected before those that came since. Return the number of written rows,
    and the rows of the calls that a rebuilt ledger has counted again or rejected.
    """
    written = 0
    again: list[tuple[Any, ...]] = []
    refused = [row for row in found if row[_DECISION] == REJECTED]
    for some in (refused, [row for row in found if row[_DECISION] != REJECTED]):
        new = await write_usage(connection, partition, some) if some else 0
        recounted = await _recounted(connection, partition, some) if new < len(some) else []
        written += new + len(recounted)
        again += recounted
    return written, again


async def _recounted(connection: Any, partition: int, found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Write the calls anew that a rebuilt ledger has counted again with another result; return their rows."""
    now = counted_by_ledgers(found)
    if not now:
        return []
    before = {
        (identity, month): CountedCall._make([*decided, ledger_of(decided[1])])
        for identity, month, *decided in await connection.fetch(_COUNTED, *zip(*now, strict=True), partition)
    }
    again = [key for key, counted in before.items() if is_recounted(counted, now[key])]
    if not again:
        return []
    new = [(*key, now[key].part, now[key].held) for key in again]
    taken = {tuple(key) for key in await connection.fetch(_RECOUNTED, *zip(*new, strict=True))}
    chosen = [row for row in found if (row[0], row[MONTH]) in taken]
    if chosen:
        await write_usage(connection, partition, chosen)
    return chosen


async def doubled_calls(connection: Any, found: list[tuple[Any, ...]], written: int) -> dict[str, int]:
    """Store pairs of billed calls that look like one call; returns how many are new, by kind."""
    new: dict[str, int] = {}
    billed, jobs = billed_twice(found)
    copies = parts_billed(found) if written < len(found) else []
    for kind, statement, suspects in (
        *((BRIDGE, BRIDGED, billed), (JOB, JOBS, jobs)),
        (COPY, _COPIES, copies),
    ):
        if suspects and (count := rows_in(await connection.execute(statement, *zip(*suspects, strict=True)))):
            new[kind] = count
    return new
