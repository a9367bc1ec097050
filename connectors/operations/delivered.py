"""Reads from Postgres, page by page, the events that were delivered to a subscription that has ended in Lago."""

from collections.abc import AsyncIterator, Collection, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from connectors.operations.after_end import PAGE, UninvoicedEvent, manifest_of, redirected
from connectors.operations.last_invoice import Life
from connectors.postgres.pool import Database
from schemas.customers import OrgRecord
from schemas.moments import to_datetime, to_us
from schemas.records import LagoEvent
from streams.core.delivery.after_end import AGAIN

#: The most rows, without their events, in memory at once.
ROWS: Final = 5_000

#: The 40 days limit the rows that are read: an event waits for Lago for 30 days at most, and the clock of its calls is
#: less than a day ahead.
_DELIVERED = """
FROM usage_parts p JOIN lago_events e ON e.transaction_id = p.part AND e.billed_at >= $3 AND e.billed_at < $4
WHERE p.org_id = $1 AND COALESCE(p.posted_to, p.external_subscription_id) = $2 AND p.status = 'completed'
    AND p.event ->> 'code' = $5 AND p.sealed_at >= $6::timestamptz - interval '40 days' AND p.processed_at >= $6
"""
_AGAIN = f"""
EXISTS (SELECT FROM usage_parts other WHERE other.part = p.part || '{AGAIN}' AND other.event IS NOT NULL) AS again
"""
#: A join, because a cached plan of Postgres would compare each row with each name.
_COUNT = f"""
SELECT count(named.part), count(*) - count(named.part)
FROM (SELECT p.part {_DELIVERED}) delivered LEFT JOIN unnest($7::text[]) AS named (part) ON named.part = delivered.part
"""  # noqa: S608  # our own words
_ROWS = f"""
SELECT p.part, e.billed_at, p.processed_at, p.amount_cents, {_AGAIN} {_DELIVERED} AND p.part > $7
ORDER BY p.part LIMIT $8
"""  # our own words
_EVENTS = f"""
SELECT p.part, p.event::text, p.calls, p.raw_partition, p.first_offset, p.last_offset, p.windows, {_AGAIN}
FROM usage_parts p WHERE p.org_id = $1 AND p.part = ANY($2::text[]) AND p.status = 'completed' AND p.event IS NOT NULL
ORDER BY p.part
"""  # noqa: S608  # our own words


class PostedEvent(NamedTuple):
    """An event that Lago accepted. Times are microseconds since 1970 UTC.

    Fields:
        at_us: the timestamp with which it was posted.
        taken_us: when Lago accepted it, according to its receipt.
        again: see `UninvoicedEvent`.
    """

    transaction_id: str
    at_us: int
    taken_us: int
    cents: Decimal
    again: bool = False


class Deliveries(Protocol):
    """Queries on the delivered events of one org and one metric; `since_us`: only events that were delivered at or
    after it.
    """

    async def some(self, life: Life) -> bool: ...
    async def counted(self, life: Life, since_us: int, named: Collection[str]) -> tuple[int, int]: ...
    def rows(self, life: Life, since_us: int) -> AsyncIterator[list[PostedEvent]]: ...


class DeliveredRows:
    """Implements `Deliveries` with Postgres. Each method raises: Unavailable: Postgres does not answer."""

    def __init__(self, database: Database, org_id: str, code: str) -> None:
        self._database = database
        self._org_id = org_id
        self._code = code

    async def some(self, life: Life) -> bool:
        """Return whether any event has a timestamp in that life."""
        async with self._database.connection() as connection:
            query = f"SELECT EXISTS (SELECT {_DELIVERED})"
            return bool(await connection.fetchval(query, *self._asked(life, life.started_us)))

    async def counted(self, life: Life, since_us: int, named: Collection[str]) -> tuple[int, int]:
        """Count the events with a timestamp in that life: those in `named`, and all others."""
        async with self._database.connection() as connection:
            of_named, others = await connection.fetchrow(_COUNT, *self._asked(life, since_us), list(named))
        return of_named, others

    async def rows(self, life: Life, since_us: int) -> AsyncIterator[list[PostedEvent]]:
        """Yield the events with a timestamp in that life, in the order of their ids, at most `ROWS` at once."""
        after = ""
        while True:
            async with self._database.connection() as connection:
                found = await connection.fetch(_ROWS, *self._asked(life, since_us), after, ROWS)
            if not found:
                return
            after = found[-1]["part"]
            yield [_delivered(row) for row in found]

    def _asked(self, life: Life, since_us: int) -> tuple[Any, ...]:
        bounds = to_datetime(life.started_us), to_datetime(life.until_us)
        return self._org_id, life.subscription, *bounds, self._code, to_datetime(since_us)


def _delivered(row: Mapping[str, Any]) -> PostedEvent:
    at_us, taken_us = to_us(row["billed_at"]), to_us(row["processed_at"])
    return PostedEvent(row["part"], at_us, taken_us, row["amount_cents"] or Decimal(0), row["again"])


async def lost_pages(
    database: Database, org: OrgRecord, life: Life, named: Mapping[str, str], now_us: int, code: str
) -> AsyncIterator[list[UninvoicedEvent]]:
    """Yield the events in `named` in their present state, each with its replacement event if there can be one.

    An event that was billed again meanwhile has `again` set, or is missing.

    Args:
        org: the org as Lago has it now.
        named: see `NotInvoiced`.

    Raises:
        Unavailable: Postgres does not answer.
    """
    ids = sorted(named)
    for start in range(0, len(ids), PAGE):
        async with database.connection() as connection:
            rows = await connection.fetch(_EVENTS, org.org_id, ids[start : start + PAGE])
        yield [_lost(row, org, life, named[row["part"]], now_us, code) for row in rows]


def _lost(row: Mapping[str, Any], org: OrgRecord, life: Life, why: str, now_us: int, code: str) -> UninvoicedEvent:
    event, again = msgspec.json.decode(row["event"], type=LagoEvent), row["again"]
    unclear = "" if again else why
    lost = UninvoicedEvent(
        event, org.org_id, life.subscription, life.ended_us, manifest_of(row), again, unclear=unclear
    )
    return redirected(lost, org, now_us, code)
