"""Reads from the usage log which calls a billed event holds, and which event billed a call."""

from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from connectors.operations.asked_amount import in_question, unit_of
from connectors.operations.call_stories import HELD, CallRow, EventStory
from connectors.operations.present_reason import HeldAsCounted, present_reasons
from connectors.postgres.pool import Database
from schemas.reasons import WRITTEN_OFF
from streams.core.delivery.after_end import AGAIN
from streams.runtime.clock import now_us

#: The payer's factor is read as in migrations/0017_call_debits.sql.
_EVENT = r"""
SELECT transaction_id, external_subscription_id, org_id, amount_cents, calls, status, attempts, reason, sealed_at,
       processed_at, billed_at, maybe_sent, event #>> '{properties,instead_of}' AS instead_of,
       CASE WHEN NOT event->'properties' ? 'transaction_id' AND event #>> '{properties,rate_factor}' ~ '^[0-9]{1,9}(\.[0-9]{1,9})?$'
           THEN event #>> '{properties,rate_factor}' END AS rate_factor,
       (SELECT other.transaction_id FROM lago_events other WHERE other.transaction_id = this.transaction_id || '-again')
           AS again
FROM lago_events this WHERE transaction_id = $1
"""
#: Marks a part that is no event: its calls were held when they were counted, or when the part was due to be sealed.
_HELD = f"""
SELECT status IS NOT DISTINCT FROM '{WRITTEN_OFF}' AS given_up, released_in AS transaction_id,
       held_customer_id, held_id_kind, held_org_id, held_reason,
       (SELECT max(ended_at) FROM llm_usage_log WHERE part = $1) AS ended_at,
       CASE WHEN status = '{WRITTEN_OFF}' THEN COALESCE(reason, '') ELSE COALESCE(held_reason, status, '') END AS reason
FROM usage_parts WHERE part = $1 AND (held_calls > 0 OR released_in IS NOT NULL OR status = '{WRITTEN_OFF}')
"""  # noqa: S608  # our own word
#: The fields of `CallRow` by their names, and its `place` in two columns.
_COLUMNS = """encode(u.identity, 'hex') AS identity, u.part, u.customer_id AS customer, u.decision, u.model, u.provider,
u.total_tokens AS tokens, u.cost_usd AS usd, u.started_at, u.ended_at, u.call_id, u.request_id, u.raw_partition, u.raw_offset,
u.tokens_input, u.tokens_output, u.billed_usd AS billed, COALESCE(u.price_usd, u.billed_usd) AS price, u.rate"""
_CALLS = f"""
SELECT {_COLUMNS} FROM llm_usage_log u
WHERE part = $1 OR part IN (SELECT part FROM usage_parts WHERE released_in = $1)
ORDER BY raw_partition, raw_offset
"""  # noqa: S608  # our own words
_REQUESTS = f"""
SELECT {_COLUMNS} FROM llm_usage_log u
WHERE request_id = $1 OR call_id = $1 OR alias = $1 OR identity = $2
ORDER BY started_at
"""  # noqa: S608
#: Calls of a LiteLLM customer, or of an org. Usage may be counted without an org or for another org, so the org is read
#: from its event; without an event it is the org that it was counted for.
_NAMED = f"""
WITH named AS MATERIALIZED (
    SELECT {_COLUMNS} FROM llm_usage_log u WHERE customer_id = $1 AND ended_at >= $2 AND ended_at < $3
    UNION
    SELECT {_COLUMNS} FROM llm_usage_log u
    WHERE org_id = $1 AND org_id <> '' AND ended_at >= $2 AND ended_at < $3 AND NOT EXISTS (
        SELECT FROM usage_parts p JOIN usage_parts e ON e.part = COALESCE(p.released_in, p.part)
        WHERE p.part = u.part AND u.part <> '' AND e.event IS NOT NULL AND e.org_id <> $1
    )
    UNION
    SELECT {_COLUMNS}
    FROM usage_parts e
    JOIN usage_parts p ON p.part = e.part OR p.released_in = e.part
    JOIN llm_usage_log u ON u.part = p.part
    WHERE e.org_id = $1 AND e.sealed_at >= $2 AND u.org_id <> $1 AND u.ended_at >= $2 AND u.ended_at < $3
)
SELECT n.*, (SELECT count(*) FROM named) AS looked_at FROM named n
"""  # noqa: S608
_NEAREST = "ORDER BY GREATEST(n.ended_at - $4, $4 - n.ended_at), raw_partition, raw_offset LIMIT $5"
_OF_CUSTOMER = _NAMED + _NEAREST
#: Those of them that cost or are billed at an amount, or that are in an event of this amount, to half of a unit.
_OF_AMOUNT = f"""{_NAMED}
LEFT JOIN usage_parts p ON n.part <> '' AND p.part = n.part
LEFT JOIN usage_parts e ON e.part = COALESCE(p.released_in, p.part)
WHERE abs(n.usd - $6) * 2 <= $7 OR abs(n.billed - $6) * 2 <= $7 OR abs(e.amount_cents - 100 * $6) * 2 <= 100 * $7
{_NEAREST}
"""
#: The most calls of a customer that are returned.
MOST = 5000
_IDENTITY_HEX = 32


class CustomerCalls(NamedTuple):
    """Calls, each with its event, and how many calls were searched for them."""

    calls: list[tuple[CallRow, EventStory | None]]
    looked_at: int


async def story_of_event(database: Database, transaction_id: str, code: str = "") -> EventStory | None:
    """Return the calls of one billed event or of a held part; None if neither is known.

    An event that replaces another one bills that event's calls. The result shows both, also for the id of one of them.

    Args:
        code: see `present_reasons`.

    Raises:
        Unavailable: Postgres does not answer.
    """
    async with database.connection() as connection:
        row = await connection.fetchrow(_EVENT, transaction_id)
        held = await connection.fetchrow(_HELD, transaction_id) if row is None else None
        calls = await connection.fetch(_CALLS, await _first(connection, row, transaction_id))
        waits = held is not None and not (held["transaction_id"] or held["given_up"])
        present = await _present(connection, held, code) if waits else None
    if row is not None:
        story = _story(row)
        if row["again"] is not None:
            story.again = await story_of_event(database, row["again"])
    elif held is None:
        return None
    elif held["transaction_id"]:
        return await story_of_event(database, held["transaction_id"])
    elif waits:
        story = EventStory(transaction_id, HELD, reason=present or held["reason"], reason_is_past=present is None)
    else:
        story = EventStory(transaction_id, WRITTEN_OFF, reason=held["reason"])
    story.calls = [_call(call) for call in calls]
    return story


async def _present(connection: Any, held: Any, code: str) -> str | None:
    """Return why a held part is held now; None = not known."""
    if not held["held_reason"] or held["ended_at"] is None:
        return None
    customer, kind, org_id = (held[name] or "" for name in ("held_customer_id", "held_id_kind", "held_org_id"))
    part = HeldAsCounted(customer, kind, org_id, held["held_reason"], held["ended_at"])
    [reason] = await present_reasons(connection, [part], code, now_us())
    return reason


async def _first(connection: Any, row: Any, transaction_id: str) -> str:
    """Return the event whose calls this event bills: the first event in the chain of replacements."""
    while row is not None and row["instead_of"] and f"{row['instead_of']}{AGAIN}" == transaction_id:
        transaction_id = row["instead_of"]
        row = await connection.fetchrow(_EVENT, transaction_id)
    return transaction_id


async def stories_of_request(
    database: Database, request: str, code: str = ""
) -> list[tuple[CallRow, EventStory | None]]:
    """Return every call with this request id, call id or identity, each with its event. A failed attempt is a call of
    its own.

    None instead of an event: the call's window is still open if it has a part; otherwise its decision says why it is in
    no event. See `without_event`.

    Args:
        code: see `present_reasons`.

    Raises:
        Unavailable: Postgres does not answer.
    """
    identity = bytes.fromhex(request) if _is_identity(request) else b""
    async with database.connection() as connection:
        calls = [_call(row) for row in await connection.fetch(_REQUESTS, request, identity)]
    return [(call, await story_of_event(database, call.part, code) if call.part else None) for call in calls]


async def calls_of_customer(
    database: Database,
    customer: str,
    since: datetime,
    until: datetime,
    *,
    usd: Decimal | None = None,
    nearest_to: datetime | None = None,
    most: int = MOST,
    code: str = "",
) -> CustomerCalls:
    """Return the calls of a customer or an org that ended in `[since, until)`, each with its event, in the order of
    their ends.

    Args:
        usd: only the calls of this amount, see `in_question`; None = all.
        nearest_to: if there are more than `most` calls, those are returned that ended nearest to this moment; None =
            to `since`.
        code: see `present_reasons`.

    Raises:
        Unavailable: Postgres does not answer.
    """
    asked: tuple[Any, ...] = (customer, since, until, nearest_to or since, most)
    query = _OF_CUSTOMER
    if usd is not None:
        query, asked = _OF_AMOUNT, (*asked, usd, unit_of(usd))
    async with database.connection() as connection:
        rows = await connection.fetch(query, *asked)
    calls = sorted(map(_call, rows), key=lambda call: (call.ended_at, call.place))
    stories: dict[str, EventStory | None] = {"": None}
    for call in calls:
        if call.part not in stories:
            stories[call.part] = await story_of_event(database, call.part, code)
    told = [(call, stories[call.part]) for call in calls]
    return CustomerCalls(told if usd is None else in_question(told, usd), rows[0]["looked_at"] if rows else 0)


def _story(row: Any) -> EventStory:
    return EventStory(
        row["transaction_id"],
        row["status"],
        row["external_subscription_id"],
        row["org_id"] or "",
        row["amount_cents"],
        row["calls"] or 0,
        row["attempts"],
        row["reason"] or "",
        row["sealed_at"],
        row["processed_at"],
        row["billed_at"],
        instead_of=row["instead_of"] or "",
        factor=Decimal(row["rate_factor"] or 1),
        maybe_sent=row["maybe_sent"],
    )


def _call(row: Any) -> CallRow:
    fields = dict(row)
    fields.pop("looked_at", None)
    place = f"{fields.pop('raw_partition')}/{fields.pop('raw_offset')}"
    return CallRow(place=place, **fields)


def _is_identity(text: str) -> bool:
    return len(text) == _IDENTITY_HEX and all(sign in "0123456789abcdef" for sign in text)
