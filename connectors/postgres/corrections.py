"""Corrects the debits of calls if their event, or a write-off, bills them differently from their counted amounts.

The order of the transactions ensures the correctness (docs/adr/0036-the-event-decides-what-is-debited.md):

1. The rows of the events are committed, and the parts that they concern are stored.
2. Every transaction that writes or debits calls holds `CALLS` as a shared lock. If a session gets it exclusively for a
moment, all transactions that may not have seen the rows are over. Every later transaction reads the stored parts
itself. 3. The calls are corrected in chunks, each a transaction. A correction is a difference, so a repeated correction
changes nothing. 4. Finally the partition's position moves.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, NamedTuple

from connectors.postgres.sql_files import sql

#: Number of calls in one chunk. An authorisation of the same account waits while a chunk is corrected.
CHUNK: Final = 1000
#: Parts whose calls are read at once. A release may contain millions of calls, and a part contains the calls of a
#: minute.
PARTS: Final = 50
#: The lock of the transactions that write or debit calls, until their end.
CALLS: Final = "pg_advisory_xact_lock_shared(hashtext('meterbridge calls and events'))"
#: This runs outside a transaction. It waits for the transactions that hold the lock, and releases its own lock at once.
_ALL_OVER: Final = "SELECT pg_advisory_xact_lock(hashtext('meterbridge calls and events'))"
_IN_USE: Final = "SELECT EXISTS (SELECT FROM user_credits)"
_CALLS: Final = "SELECT identity, month::text FROM llm_usage_log WHERE part = ANY($1::text[]) AND part <> ''"
#: Ordered, so that two such transactions cannot deadlock.
_DONE: Final = """
UPDATE corrected_parts SET done = true
WHERE part IN (SELECT part FROM corrected_parts WHERE part = ANY($1::text[]) ORDER BY part FOR UPDATE)
"""
Keys = Sequence[tuple[bytes, str]]


_DEBIT: Final = sql("debits.sql")
_MOVED_PARTS: Final = sql("moved_parts.sql")
_EVENT_PRICES: Final = sql("event_prices.sql")


class Moved(NamedTuple):
    """Parts whose calls must be corrected.

    Fields:
        prepaid: whether there are accounts; without one only the usage log is corrected.
    """

    parts: list[str]
    prepaid: bool


async def moved_parts(connection: Any, parts: Sequence[str], *, rated: bool) -> Moved:
    """Store and return the parts whose calls may be billed differently from their counted amounts.

    Args:
        connection: in the transaction that has written the parts' rows.
        parts: ids of new events, of the held parts in them, or of parts that were written off.
        rated: whether a rate card has priced one of them. Then the usage log gets the prices of the events, too.
    """
    if not parts:
        return Moved([], False)
    prepaid = await connection.fetchval(_IN_USE)
    if not (prepaid or rated):
        return Moved([], False)
    return Moved([part for (part,) in await connection.fetch(_MOVED_PARTS, parts)], prepaid)


async def calls_of(connection: Any, moved: Moved) -> AsyncIterator[Keys]:
    """Yield the calls of these parts in chunks. A call that is written later is debited by the event at once.

    Args:
        connection: outside a transaction, now and at each request for the next chunk; the transaction of `moved_parts`
            is committed.
    """
    await connection.execute(_ALL_OVER)
    calls: list[tuple[bytes, str]] = []
    for start in range(0, len(moved.parts), PARTS):
        calls += [tuple(row) for row in await connection.fetch(_CALLS, moved.parts[start : start + PARTS])]
        while len(calls) >= CHUNK:
            yield calls[:CHUNK]
            del calls[:CHUNK]
    if calls:
        yield calls


async def correct(connection: Any, calls: Keys, user_kinds: Sequence[str], *, prepaid: bool) -> int:
    """Debit or give back the difference between the billed amount of these calls and their debits; return how many were
    debited.

    Args:
        connection: in a transaction with the lock `CALLS`, as its last work: it locks rows of the log, then accounts.
    """
    await reprice(connection, calls)
    if not prepaid:
        return 0
    debited = await connection.fetchrow(_DEBIT, *zip(*calls, strict=True), user_kinds, [False] * len(calls))
    return int(debited["calls"])


async def corrected(connection: Any, moved: Moved) -> None:
    """Store that the calls of these parts are corrected."""
    await connection.execute(_DONE, moved.parts)


async def reprice(connection: Any, calls: Keys) -> None:
    """Write the prices of the events of these calls into the usage log."""
    if calls:
        await connection.execute(_EVENT_PRICES, *zip(*calls, strict=True))
