"""Reads from the usage log which calls a billed event holds, and which event billed a call. Checks the sum."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from connectors.operations.asked_amount import in_question, unit_of
from connectors.operations.present_reason import HeldAsCounted, present_reasons
from connectors.postgres.pool import Database
from schemas.money import EXACT, ZERO, total
from schemas.reasons import WRITTEN_OFF
from streams.core.delivery.after_end import AGAIN
from streams.core.delivery.maybe_sent import lago_may_have
from streams.core.delivery.receipt_states import FAILED
from streams.core.metering.decisions import CARRIED, LOST, UNBILLED
from streams.runtime.clock import now_us

#: The status of a part that is no event yet.
HELD: Final = "held"
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
#: Decisions of calls without an event whose cost no event ever has.
_NEVER_BILLED: Final = UNBILLED - {CARRIED}
#: The most calls of a customer that are returned.
MOST = 5000
_HUNDRED = Decimal(100)
_IDENTITY_HEX = 32


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call of the usage log.

    Fields:
        usd: the amount that the provider charged.
        place: partition and offset in the raw topic.
        billed: the billed amount by the rate card `rate`; None = no card.
        price: the same amount before the payer's factor; None = no card.
    """

    identity: str
    part: str
    customer: str
    decision: str
    model: str
    provider: str
    tokens: int
    usd: Decimal
    started_at: datetime
    ended_at: datetime
    call_id: str
    request_id: str
    place: str
    tokens_input: int = 0
    tokens_output: int = 0
    billed: Decimal | None = None
    price: Decimal | None = None
    rate: str = ""


@dataclass(slots=True)
class EventStory:
    """One Lago event with its amount and its state.

    Fields:
        status: `pending`, `processing`, `completed` or `failed`; `HELD` for a part that is no event yet, `WRITTEN_OFF`
            for one that never becomes one.
        reason: of a part that was written off, the id of the audit line; of a held part, why it is held.
        reason_is_past: `reason` is the one of the moment at which the held part was counted, and may have changed.
        billed_at: the moment that the event has in Lago, which decides its invoice; None if its text is no moment.
        instead_of: id of the event that this event replaces, `""` = none.
        again: the event that replaces this event.
        factor: the payer's factor, from the rate card.
        maybe_sent: see `schemas.records.Receipt`.
    """

    transaction_id: str
    status: str
    subscription: str = ""
    org_id: str = ""
    cents: Decimal = ZERO
    claimed_calls: int = 0
    attempts: int = 0
    reason: str = ""
    sealed_at: datetime | None = None
    processed_at: datetime | None = None
    billed_at: datetime | None = None
    calls: list[CallRow] = field(default_factory=list)
    instead_of: str = ""
    again: "EventStory | None" = None
    factor: Decimal = Decimal(1)
    reason_is_past: bool = False
    maybe_sent: bool | None = None

    @property
    def may_be_in_lago(self) -> bool:
        """Whether it is a dead letter that Lago may have, and then bills."""
        return self.status == FAILED and lago_may_have(self.reason, self.maybe_sent)

    @property
    def last(self) -> "EventStory":
        """The event that bills the calls: the last event in the chain of replacements."""
        return self if self.again is None else self.again.last

    @property
    def usd_of_calls(self) -> Decimal:
        """The sum of the billed amounts of the calls, dollars: their costs, or their prices by the rate card with the
        factor.
        """
        return total(self._usd_of(call) for call in self.calls)

    @property
    def adds_up(self) -> bool:
        """Whether the event has the same number of calls and exactly the same sum."""
        cents = EXACT.multiply(self.usd_of_calls, _HUNDRED)
        return len(self.calls) == self.claimed_calls and cents == self.cents

    @property
    def is_shifted(self) -> bool:
        """Whether Lago bills it as of a moment after its last call: see law 11 of docs/owed.md."""
        ends = [call.ended_at for call in self.calls]
        return self.billed_at is not None and bool(ends) and max(ends) < self.billed_at

    @property
    def proved(self) -> bool:
        """Whether the event adds up, and also the event that replaces it, if there is one."""
        return self.adds_up and (self.again is None or self.again.proved)

    def _usd_of(self, call: CallRow) -> Decimal:
        return call.usd if call.price is None else EXACT.multiply(call.price, self.factor)


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


def never_billed(calls: list[tuple[CallRow, EventStory | None]]) -> Decimal:
    """Return the amount of the calls that no event will bill, dollars: their decision says why, or they were written
    off.

    Not in it: calls in a window that is still open; failed attempts whose cost is billed with the call after them; calls
    that were lost before an event billed them, because a backfill can bill those.
    """
    return total(map(_billed_amount, (call for call, story in calls if _is_never_billed(call, story))))


def usd_of(calls: list[tuple[CallRow, EventStory | None]]) -> Decimal:
    """Return the amount of the calls, dollars. The cost of a failed attempt that is billed with the call after it is in
    the amount of that call, and is not added again.
    """
    return total(_billed_amount(call) for call, _ in calls if call.decision != CARRIED)


def without_event(call: CallRow) -> str:
    """Say for people why a call has no event."""
    if call.part:
        return "open: its event is not sealed yet"
    if call.decision == CARRIED:
        return "billed with the call after it"
    if call.decision == LOST:
        return "not billed: lost, a backfill bills it"
    return f"not billed: {call.decision}"


def _is_never_billed(call: CallRow, story: EventStory | None) -> bool:
    if story is not None:
        return story.status == WRITTEN_OFF
    return not call.part and call.decision in _NEVER_BILLED


def _billed_amount(call: CallRow) -> Decimal:
    return call.usd if call.billed is None else call.billed


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
