"""Usage with a moment before the end of its subscription that reached Lago after it had counted the last invoice.

Lago took it, and it is on no invoice. Which events those are is worked out from the last invoice itself
(streams/core/delivery/after_invoice.py); where that does not tell, they are named and left to a person (docs/adr/0027).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from connectors.lago.events import EventShape
from connectors.lago.transport import read
from connectors.operations.after_end import Lost, Told, manifest_of, redirected
from connectors.operations.last_invoice import MAYBE_INVOICED, Counted, Invoices, Life, last_counted
from connectors.postgres.pool import Database
from schemas.customers import OrgRecord
from schemas.moments import SECOND_US, parse_us, to_datetime, to_us
from schemas.records import LagoEvent, Manifest
from streams.core.delivery.after_end import AGAIN
from schemas.money import ZERO, add
from streams.core.delivery.after_invoice import Earlier, Stored, overtaken

#: At most this many events of a last billing period are read from Lago. With more, all of them are unclear.
MOST: Final = 10_000
#: So far apart may be our clock and Lago's: what was delivered so long before an end is looked at, too.
CLOCKS_US: Final = 60 * SECOND_US

_CANDIDATES = f"""
SELECT p.part, p.event::text, p.calls, p.raw_partition, p.first_offset, p.last_offset, p.windows, p.processed_at,
       life.name, e.billed_at,
       EXISTS (SELECT FROM usage_parts other WHERE other.part = p.part || '{AGAIN}' AND other.event IS NOT NULL) AS again
FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[]) AS life (name, begins, ends, since)
JOIN usage_parts p ON p.org_id = $1 AND COALESCE(p.posted_to, p.external_subscription_id) = life.name
    AND p.status = 'completed' AND p.event ->> 'code' = $6 AND p.sealed_at >= life.since - interval '40 days'
    AND p.processed_at >= life.since
JOIN lago_events e ON e.transaction_id = p.part AND e.billed_at >= life.begins AND e.billed_at < life.ends
ORDER BY p.part LIMIT {MOST}
"""  # noqa: S608  # our own words


class Posted(NamedTuple):
    """An event that was delivered, microseconds since 1970 UTC.

    Fields:
        event: as it was sealed.
        subscription, at_us: where it was posted, and with which moment.
        taken_us: when its receipt says that Lago took it.
        again: as of `Lost`.
    """

    event: LagoEvent
    subscription: str
    at_us: int
    taken_us: int
    manifest: Manifest | None = None
    again: bool = False


class Judged(NamedTuple):
    """What was found of the events that were posted.

    Fields:
        lost: on no invoice, each with the event that bills it now where one can; or `unclear`.
        settled: ids of those that are on the last invoice, which never changes again.
    """

    lost: list[Lost]
    settled: frozenset[str] = frozenset()


def may_be_late(life: Life, posted: Posted) -> bool:
    """Whether an event lies in that life, and was delivered when its last invoice may have been counted already."""
    in_it = posted.subscription == life.subscription and life.started_us <= posted.at_us < life.until_us
    return in_it and posted.taken_us >= life.ended_us - CLOCKS_US


async def judged(
    lives: Iterable[Life], posted: Sequence[Posted], org: OrgRecord, lago: Invoices, now_us: int, code: str
) -> Judged:
    """Which of the events the last invoices of their subscriptions did not count. Lago is asked only where there are any.

    Args:
        lives: of the org's subscriptions, those that have ended.
        posted: events of the metric `code`, also others than those that `may_be_late`.
        org: as Lago has it now.

    Raises:
        LagoIntegrationError
    """
    lost, settled = [], set[str]()
    for life in lives:
        found = [one for one in posted if one.event.code == code and may_be_late(life, one)]
        if not found:
            continue
        told, rest_is_on_it = await _not_on_it(life, found, org.org_id, lago, now_us, code)
        for one in found:
            name = one.event.transaction_id
            if one.again or name in told:
                lost.append(_lost(one, life, org, "" if one.again else told[name], now_us, code))
            elif rest_is_on_it:
                settled.add(name)
    return Judged(lost, frozenset(settled))


async def late_of(
    database: Database, told: Told, lago: Invoices, now_us: int, code: str, settled: frozenset[str] = frozenset()
) -> Judged:
    """As `judged`, of what was delivered to an org, but for what is `settled` already, which stays so.

    Raises:
        LagoIntegrationError
        Unavailable: Postgres does not answer.
    """
    posted = await posted_late(database, told.org.org_id, told.lives, code)
    unsettled = [one for one in posted if one.event.transaction_id not in settled]
    found = await judged(told.lives, unsettled, told.org, lago, now_us, code)
    return found._replace(settled=found.settled | {one.event.transaction_id for one in posted} & settled)


async def still_lost(database: Database, told: Told, lost: Sequence[Lost], code: str) -> list[Lost]:
    """`lost` as it stands now: an event that was billed again meanwhile has `again`. The last invoice itself never changes.

    Raises:
        Unavailable: Postgres does not answer.
    """
    if not lost:
        return []
    again = {
        one.event.transaction_id: one.again for one in await posted_late(database, told.org.org_id, told.lives, code)
    }
    left = [one for one in lost if one.event.transaction_id in again]
    return [replace(one, again=True, instead=None) if again[one.event.transaction_id] else one for one in left]


async def _not_on_it(
    life: Life, found: Sequence[Posted], org_id: str, lago: Invoices, now_us: int, code: str
) -> tuple[Mapping[str, str], bool]:
    """Ids of events that are not on the last invoice, with why that is unclear, `""` = they are late; and whether all
    others are on it. Nothing is known of any while there is no final invoice.
    """
    counted = await last_counted(lago, org_id, life, code, now_us)
    if counted.waits:
        return {}, False
    if counted.unclear:
        return _after_the_end(found, life, counted.unclear), False
    stored = await _stored(lago, life, counted, code)
    if stored is None:
        return _after_the_end(found, life, MAYBE_INVOICED), False
    known = {one.transaction_id for one in stored}
    # Lago has it with another moment, or does not show it yet. What lies before belongs to an earlier invoice.
    missing = (one for one in found if one.at_us >= counted.from_us and one.event.transaction_id not in known)
    earlier, after = _around(life.ended_us, stored)
    verdict = overtaken(earlier, after, counted.events, counted.cents)
    unclear = [*verdict.unclear, *(one.event.transaction_id for one in missing)]
    return {**dict.fromkeys(unclear, MAYBE_INVOICED), **dict.fromkeys(verdict.late, "")}, True


def _after_the_end(found: Iterable[Posted], life: Life, why: str) -> Mapping[str, str]:
    """Where the invoice tells nothing, what was delivered before the end is taken to be on it."""
    return {one.event.transaction_id: why for one in found if one.taken_us >= life.ended_us + SECOND_US}


async def _stored(lago: Invoices, life: Life, counted: Counted, code: str) -> list[Stored] | None:
    """What Lago has in the fee's bounds; None where it does not tell all of it."""
    listed = await lago.events_of(life.subscription, code, counted.from_us, life.until_us, MOST)
    if listed is None or any(one.created_at is None for one in listed):
        return None
    return [_as_stored(one) for one in listed]


def _around(end_us: int, stored: Iterable[Stored]) -> tuple[Earlier, list[Stored]]:
    """What Lago stored before the second of the end, and what since."""
    earlier, after = Earlier(), list[Stored]()
    for one in stored:
        if one.created_us >= end_us:
            after.append(one)
        else:
            earlier = Earlier(earlier.events + 1, add(earlier.cents, one.cents), (*earlier.ids, one.transaction_id))
    return earlier, after


def _as_stored(event: EventShape) -> Stored:
    cents = Decimal(event.precise_total_amount_cents or 0)
    return Stored(event.transaction_id, read(parse_us, event.created_at or ""), cents)


def _lost(posted: Posted, life: Life, org: OrgRecord, unclear: str, now_us: int, code: str) -> Lost:
    lost = Lost(
        posted.event, org.org_id, life.subscription, life.ended_us, posted.manifest, posted.again, unclear=unclear
    )
    return redirected(lost, org, now_us, code)


async def posted_late(database: Database, org_id: str, lives: Sequence[Life], code: str) -> list[Posted]:
    """The first `MOST` events of the metric that `may_be_late`, by their ids. Raises: Unavailable."""
    if not lives:
        return []
    names = [one.subscription for one in lives]
    columns = (
        [to_datetime(one.started_us) for one in lives],
        [to_datetime(one.until_us) for one in lives],
        [to_datetime(one.ended_us - CLOCKS_US) for one in lives],
    )
    async with database.connection() as connection:
        rows = await connection.fetch(_CANDIDATES, org_id, names, *columns, code)
    return [_posted(row) for row in rows]


def _posted(row: Mapping[str, Any]) -> Posted:
    event = msgspec.json.decode(row["event"], type=LagoEvent)
    at_us, taken_us = to_us(row["billed_at"]), to_us(row["processed_at"])
    return Posted(event, row["name"], at_us, taken_us, manifest_of(row), row["again"])
