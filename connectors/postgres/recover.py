"""Reads the data about lost topics from Postgres, and prepares the tables for the new topics (docs/adr/0053).

The tables stay. They contain the billed calls, so a backfill bills none of them again. Counted calls that are in no
event were lost with the ledgers. They are marked, and a copy of such a call is billed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from connectors.postgres.pool import connected
from connectors.postgres.recover_released import Undecided, mark_released
from schemas.records import LagoEvent
from streams.core.delivery.receipt_states import UNBILLABLE
from streams.core.metering.decisions import LOST

_SESSION: Final = {"lock_timeout": "30s", "application_name": "meterbridge"}
#: Parts whose calls no event bills, as far as Postgres knows: open, held, or sealed after the projector's last step.
#: Parts that a receipt reports as completed are billed although their event was not projected; so are the parts that
#: were released into it.
_UNSENT: Final = """
SELECT u.part FROM llm_usage_log u
LEFT JOIN usage_parts p ON p.part = u.part
LEFT JOIN usage_parts e ON e.part = COALESCE(p.released_in, p.part)
WHERE u.part <> '' AND e.event IS NULL AND COALESCE(p.status, '') NOT IN ('completed', 'written_off')
    AND COALESCE(e.status, '') <> 'completed'
GROUP BY u.part
"""
#: Also the parts that a receipt reports as completed: their event is not known, and it may contain further parts.
_UNKNOWN: Final = """
SELECT part FROM usage_parts WHERE event IS NULL AND released_in IS NULL AND status = 'completed'
"""
_LOSE: Final = f"""
WITH lost AS (
    UPDATE llm_usage_log SET decision = '{LOST}', part = '', held = '', billed_usd = NULL, price_usd = NULL
    WHERE part = ANY($1::text[]) AND part <> ''
    RETURNING cost_usd
)
SELECT count(*), COALESCE(sum(cost_usd), 0) FROM lost
"""  # noqa: S608  # our own word
_LOSABLE: Final = (
    "SELECT count(*), COALESCE(sum(cost_usd), 0) FROM llm_usage_log WHERE part = ANY($1::text[]) AND part <> ''"
)
#: Held parts whose ledger is lost. Their usage is billed with other ids.
_HELD_GONE: Final = "DELETE FROM usage_parts WHERE part = ANY($1::text[]) AND event IS NULL"
_ADOPT: Final = """
INSERT INTO usage_parts AS p (
    part, event, external_subscription_id, org_id, customer_id, amount_cents, calls, sealed_at, status, reason, processed_at
) VALUES ($1, $2::text::jsonb, $3, $4, $5, $6::text::numeric, $7, now(), 'completed', '', now())
ON CONFLICT (part) DO UPDATE SET
    event = EXCLUDED.event, external_subscription_id = EXCLUDED.external_subscription_id, org_id = EXCLUDED.org_id,
    customer_id = EXCLUDED.customer_id, amount_cents = EXCLUDED.amount_cents, calls = EXCLUDED.calls,
    sealed_at = COALESCE(p.sealed_at, EXCLUDED.sealed_at), status = 'completed', processed_at = EXCLUDED.processed_at
WHERE p.event IS NULL
"""
#: Calls of events that are not in the log: of an event that was sealed after the last logged call of its partition, and
#: of an event that only Lago has. They are billed, and a copy of such a call would not be recognised. An event that was
#: billed again has the calls of the first event.
_MISSING: Final = """
WITH newest AS (
    SELECT raw_partition, max(recorded_at) AS at FROM llm_usage_log
    WHERE month >= date_trunc('month', now() - interval '60 days')::date GROUP BY raw_partition
), late AS (
    SELECT regexp_replace(e.part, '(-again)+$', '') AS own, e.calls FROM usage_parts e LEFT JOIN newest n ON n.raw_partition = e.raw_partition
    WHERE e.event IS NOT NULL AND e.calls > 0 AND (n.at IS NULL OR e.sealed_at >= n.at - interval '10 seconds')
        AND e.sealed_at > now() - interval '60 days'
)
SELECT COALESCE(sum(GREATEST(0, late.calls - (
    SELECT count(*) FROM llm_usage_log u JOIN usage_parts p ON p.part = u.part
    WHERE u.part <> '' AND (p.part = late.own OR p.released_in = late.own)
))), 0)::bigint FROM late
"""
#: Also events of which only a receipt is known, also in Lago: each bills at least one call.
_SILENT: Final = """
SELECT count(*) FROM usage_parts p
WHERE p.event IS NULL AND p.released_in IS NULL AND p.status = 'completed' AND p.processed_at > now() - interval '60 days'
    AND NOT EXISTS (SELECT FROM llm_usage_log u WHERE u.part = regexp_replace(p.part, '(-again)+$', '') AND u.part <> '')
"""
#: The topics' offsets begin at 0 again. A row with an old offset would block a new record, or be mistaken for it.
_BEGIN_ANEW: Final = (
    'UPDATE customer_records SET "offset" = -1',
    'UPDATE organisations SET "offset" = -1',
    "UPDATE rejected_calls SET resolution = 'lost', resolved_at = now() WHERE resolution IS NULL AND \"offset\" >= 0",
    # Below all existing keys, including those of an earlier loss: two rows must not have the same key.
    *(
        f'UPDATE {table} SET "offset" = "offset" - (SELECT max("offset") + 1 - LEAST(min("offset"), 0) FROM {table}) '  # noqa: S608  # our own words
        f'WHERE (SELECT max("offset") FROM {table}) >= 0'
        for table in ("rejected_calls", "webhook_delivery_logs")
    ),
)
_PLACES_GONE: Final = "DELETE FROM projector_offsets WHERE topic = ANY($1::text[])"
_UNPROJECTED_GONE: Final = "DELETE FROM unprojected_records WHERE topic = ANY($1::text[])"
_PLACE: Final = "INSERT INTO projector_offsets (topic, partition, topic_id, next) VALUES ($1, $2, $3, 0)"
#: The new log continues the old log, and is exactly as complete as the old log.
_COMPLETE: Final = """
INSERT INTO log_completeness AS c (partition, topic_id, since)
SELECT number, $2, GREATEST((SELECT COALESCE(max(since), '-infinity') FROM log_completeness), CASE WHEN $3 THEN now() END)
FROM generate_series(0, $1::int - 1) AS number
ON CONFLICT (partition) DO UPDATE SET topic_id = EXCLUDED.topic_id, since = EXCLUDED.since
"""
#: An event that Lago accepted but will not bill is in no topic: its usage was billed again with another id, or is
#: reported.
_EVENTS: Final = f"""
SELECT e.transaction_id AS part, e.event::text AS event, e.status, e.attempts, COALESCE(e.reason, '') AS reason, e.maybe_sent,
    e.raw_partition, e.first_offset, e.last_offset, e.calls, e.windows, e.org_id, o.organization
FROM lago_events e LEFT JOIN organisations o ON o.org_id = e.org_id
WHERE e.status IN ('pending', 'processing', 'failed')
    AND NOT starts_with(COALESCE(e.reason, ''), '{UNBILLABLE}') ORDER BY e.transaction_id
"""  # noqa: S608  # our own word
#: Rate cards that priced calls but are in no audit line: the audit topic keeps lines for 400 days, but a card is kept
#: without limit.
_RATES_GONE: Final = """
SELECT DISTINCT u.rate FROM llm_usage_log u
WHERE u.rate <> '' AND NOT EXISTS (
    SELECT FROM audit_log WHERE action = 'rates.put' AND after IS NOT NULL AND target ->> 'rate' = u.rate
) ORDER BY 1
"""
#: The time of the projector's last step, according to the rows of parts.
_LAST_SEEN: Final = "SELECT max(GREATEST(sealed_at, held_since)) FROM usage_parts"
_LATEST: Final = """
SELECT part FROM usage_parts WHERE event IS NOT NULL AND raw_partition IS NOT NULL AND part !~ '^[0-9a-f]{32}(-again)*$'
ORDER BY sealed_at DESC NULLS LAST LIMIT 1
"""
_STANDS: Final = "SELECT topic_id, max(next) FROM projector_offsets WHERE topic = $1 GROUP BY topic_id"
_KNOWN: Final = "SELECT part FROM usage_parts WHERE part = ANY($1::text[]) AND event IS NOT NULL"
_CUSTOMERS: Final = """
SELECT litellm_customer_id, versions::text AS versions, created_at, updated_at FROM customer_records ORDER BY 1
"""
_ORGS: Final = """
SELECT org_id, name, email, plan, currency, status, subscription_id, limits::text AS limits, periods::text AS periods, updated_at,
    organization FROM organisations ORDER BY 1
"""
#: Each version of the rate card is in the audit line that names its author; the latest version of an id is in force.
_RATES: Final = """
SELECT DISTINCT ON (target ->> 'rate') after::text FROM audit_log
WHERE action = 'rates.put' AND after IS NOT NULL ORDER BY target ->> 'rate', at DESC
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """What Postgres has of the state in the topics: rows of customers and orgs, the texts of rate cards, and the events that
    Lago has not taken, or refused; the ids of rate cards by which calls were priced and of which nothing is left."""

    customers: Sequence[Mapping[str, Any]]
    orgs: Sequence[Mapping[str, Any]]
    rates: Sequence[str]
    events: Sequence[Mapping[str, Any]]
    lost_rates: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class LostCalls:
    """Calls that were counted but are in no event, and their cost in dollars; `missing`: calls that are billed but not
    in the log; `undecided`: held usage that may belong to either group.
    """

    calls: int
    usd: Decimal
    missing: int
    undecided: Undecided = field(default_factory=Undecided)


@dataclass(frozen=True, slots=True)
class NewTopics:
    """The new cluster: names of the projected topics, name and id of the enriched topic, and the number of partitions."""

    projected: Sequence[str]
    enriched: str
    enriched_id: str
    partitions: int


async def stored_state(url: str) -> Stored:
    """Read the state that must be written into the topics. Raises: Unavailable, Rejected: see `connected`."""
    async with connected(url, **_SESSION) as connection:
        return Stored(
            await connection.fetch(_CUSTOMERS),
            await connection.fetch(_ORGS),
            [row[0] for row in await connection.fetch(_RATES)],
            await connection.fetch(_EVENTS),
            [row[0] for row in await connection.fetch(_RATES_GONE)],
        )


async def projected_from(url: str, topic: str) -> dict[str, int]:
    """Return the ids of the projected topics of that name, with the highest next offset. Raises: see `connected`."""
    async with connected(url, **_SESSION) as connection:
        return dict(await connection.fetch(_STANDS, topic))


async def unsent_parts(url: str) -> list[str]:
    """Return the parts whose calls are in no event that Postgres knows, and the parts of which it knows only that they
    are billed. Raises: see `connected`.
    """
    async with connected(url, **_SESSION) as connection:
        return [row[0] for statement in (_UNSENT, _UNKNOWN) for row in await connection.fetch(statement)]


async def last_seen(url: str) -> datetime | None:
    """Return when the newest part in Postgres was sealed or held; None = there is no part. Raises: see `connected`."""
    async with connected(url, **_SESSION) as connection:
        seen: datetime | None = await connection.fetchval(_LAST_SEEN)
        return seen


async def latest_part(url: str) -> str:
    """Return the id of the event that a ledger sealed last, as far as Postgres knows; `""` = none, or the identity of a
    call. Raises: see `connected`.
    """
    async with connected(url, **_SESSION) as connection:
        return await connection.fetchval(_LATEST) or ""


async def known_events(url: str, ids: Sequence[str]) -> set[str]:
    """Return those of these events that Postgres has. Raises: see `connected`."""
    async with connected(url, **_SESSION) as connection:
        return {row[0] for row in await connection.fetch(_KNOWN, list(ids))}


async def begin_anew(
    url: str, only_at_lago: Sequence[LagoEvent], topics: NewTopics, *, dry_run: bool, undecided: str = ""
) -> LostCalls:
    """Prepare the tables for the new topics in one transaction; a dry run is rolled back. A repeat changes nothing.

    Args:
        only_at_lago: events that Lago has but Postgres does not have.
        undecided: see `mark_released`.

    Raises:
        Unavailable, Rejected: see `connected`; the account must own the tables.
    """
    async with connected(url, **_SESSION) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            for event in only_at_lago:
                await connection.execute(_ADOPT, *_row_of(event))
            unsent = [row[0] for row in await connection.fetch(_UNSENT)]
            unclear = await mark_released(connection, only_at_lago, unsent, undecided)
            unsent = [row[0] for row in await connection.fetch(_UNSENT)]
            missing = await connection.fetchval(_MISSING) + await connection.fetchval(_SILENT)
            if dry_run:
                calls, usd = await connection.fetchrow(_LOSABLE, unsent)
            else:
                calls, usd = await connection.fetchrow(_LOSE, unsent)
                await connection.execute(_HELD_GONE, unsent)
                await _point_at(connection, topics, incomplete=missing > 0)
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if dry_run else transaction.commit())
        return LostCalls(calls, usd, missing, unclear)


async def _point_at(connection: Any, topics: NewTopics, *, incomplete: bool) -> None:
    for statement in _BEGIN_ANEW:
        await connection.execute(statement)
    await connection.execute(_UNPROJECTED_GONE, list(topics.projected))
    await connection.execute(_PLACES_GONE, list(topics.projected))
    for partition in range(topics.partitions):
        await connection.execute(_PLACE, topics.enriched, partition, topics.enriched_id)
    await connection.execute(_COMPLETE, topics.partitions, topics.enriched_id, incomplete)


def _row_of(event: LagoEvent) -> tuple[Any, ...]:
    text, told = msgspec.json.encode(event).decode(), event.properties
    requests = told.get("requests", "1")
    calls = int(requests) if requests.isascii() and requests.isdigit() else 1
    owner = told.get("org_id"), told.get("user_id")
    return event.transaction_id, text, event.external_subscription_id, *owner, event.precise_total_amount_cents, calls
