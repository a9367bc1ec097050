"""Applies Stripe's events to the credits of the accounts that bought them, each event once.

One transaction holds the event's id, the facts about the payment, and the credits. It is on disk before Stripe gets a
200. The rules are in `streams.core.payments.payment`.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import structlog

from connectors.credits.idempotency_keys import key_of_parts
from connectors.credits.stripe_events import StripeEvent
from connectors.postgres.pool import Database
from schemas.reasons import (
    NO_PAYMENT,
    OTHER_SESSION,
    STRIPE_APPLIED,
    STRIPE_IGNORED,
    STRIPE_NOTED,
    STRIPE_REFUSED,
    STRIPE_REPEATED,
    STRIPE_UNCHANGED,
    STRIPE_WAITING,
    UNKNOWN_PURCHASE,
    UNREADABLE_EVENT,
    WRONG_AMOUNT,
    WRONG_MODE,
)
from streams.core.payments.payment import Offer, Payment, credits_due, fits, merged_payment

#: An event that could not be read may come again once this process can read it.
_FIRST = f"""
INSERT INTO stripe_events (event_id, event_type, outcome) VALUES ($1, $2, $3)
ON CONFLICT (event_id) DO UPDATE SET outcome = excluded.outcome, received_at = now()
WHERE stripe_events.outcome = '{UNREADABLE_EVENT}' AND excluded.outcome <> '{UNREADABLE_EVENT}' RETURNING 1
"""  # noqa: S608  # our own words
_DONE = """
UPDATE stripe_events SET outcome = $2, detail = $3, payment_intent = $4, purchase_id = $5 WHERE event_id = $1
"""
_PURCHASE = """
SELECT purchase_id, account, package_id, credits, price, currency, session_id, live
FROM credit_purchases WHERE purchase_id = $1 OR session_id = $2
"""
_BY_ID = """
SELECT purchase_id, account, package_id, credits, price, currency, session_id, live
FROM credit_purchases WHERE purchase_id = $1
"""
_ENDING = "UPDATE credit_purchases SET ending = $2 WHERE purchase_id = $1 AND (ending = '' OR $2 = 'paid')"
_PAYMENT_ROW = "INSERT INTO stripe_payments (payment_intent) VALUES ($1) ON CONFLICT DO NOTHING"
_PAYMENT = "SELECT purchase_id, facts, posted, postings FROM stripe_payments WHERE payment_intent = $1 FOR UPDATE"
_STORED = """
UPDATE stripe_payments SET purchase_id = $2, facts = $3::jsonb, posted = $4, postings = $5 WHERE payment_intent = $1
"""
_POST = "SELECT * FROM add_account_credits($1, $2, $3, 'stripe', $4, $5, $6::jsonb)"
#: The account exists, because credits were posted in the same transaction.
_LINK = """
UPDATE user_credits u SET stripe_customer_id = c.customer_id
FROM stripe_customers c WHERE u.account = $1 AND c.account = $1 AND u.stripe_customer_id IS NULL
"""
_REFUSED = """
SELECT e.event_id, e.event_type, e.outcome AS reason, e.detail, e.payment_intent, e.purchase_id, p.account, e.received_at
FROM stripe_events e LEFT JOIN credit_purchases p USING (purchase_id)
WHERE e.outcome NOT IN ('applied', 'unchanged', 'ignored', 'noted', 'waiting') ORDER BY e.received_at DESC LIMIT $1
"""

_log = structlog.get_logger(__name__)
_facts_of = msgspec.json.Decoder(Payment).decode


class Result(NamedTuple):
    """The outcome of an event, one of `schemas.reasons.STRIPE_OUTCOMES`."""

    outcome: str
    detail: str = ""
    purchase_id: UUID | None = None


class StripePayments:
    """Args: count: called with the outcome of each event."""

    def __init__(self, database: Database, count: Callable[[str], None]) -> None:
        self._database = database
        self._count = count

    async def apply(self, event: StripeEvent) -> str:
        """Apply an event; return the outcome, see `Result`. Raises: Unavailable: nothing is changed, and Stripe must
        send the event again.
        """
        if event.fact is None and not event.ending:
            self._count(STRIPE_IGNORED)
            return STRIPE_IGNORED
        async with self._database.lasting() as connection:
            if not await connection.fetchval(_FIRST, event.event_id, event.event_type, STRIPE_NOTED):
                result = Result(STRIPE_REPEATED)
            else:
                result = await _applied(connection, event)
                intent = event.payment_intent or None
                await connection.execute(_DONE, event.event_id, *result[:2], intent, result.purchase_id)
        self._log_result(event.event_id, event.event_type, result)
        return result.outcome

    async def unreadable(self, event_id: str, event_type: str) -> None:
        """Store a signed event that cannot be read. It is applied if it arrives again and can be read. Raises:
        Unavailable.
        """
        async with self._database.lasting() as connection:
            await connection.execute(_FIRST, event_id, event_type, UNREADABLE_EVENT)
        self._log_result(event_id, event_type, Result(UNREADABLE_EVENT))

    async def refused(self, limit: int) -> list[dict[str, Any]]:
        """Return the latest events about money that gave no credits."""
        async with self._database.connection() as connection:
            return [dict(row) for row in await connection.fetch(_REFUSED, limit)]

    def _log_result(self, event_id: str, event_type: str, result: Result) -> None:
        self._count(result.outcome)
        if result.outcome in STRIPE_REFUSED:
            _log.warning(
                "stripe_payment_refused",
                reason=result.outcome,
                detail=result.detail,
                event_id=event_id,
                event_type=event_type,
                purchase=str(result.purchase_id or ""),
            )


async def _applied(connection: Any, event: StripeEvent) -> Result:
    purchase = await _purchase_of(connection, event)
    if refusal := _refusal(event, purchase):
        return refusal
    purchase_id = None if purchase is None else purchase["purchase_id"]
    if event.ending:
        await connection.execute(_ENDING, purchase_id, event.ending)
        return Result(STRIPE_NOTED, event.ending, purchase_id)
    return await _facts_added(connection, event, purchase)


def _refusal(event: StripeEvent, purchase: Any) -> Result | None:
    """Say why the event must not change credits. A refund or a dispute with an unknown purchase waits for the purchase."""
    if purchase is None:
        if not event.session:
            return None
        if not event.purchase:
            return Result(STRIPE_IGNORED, "a session of something else")
        return Result(UNKNOWN_PURCHASE, "no such purchase in this database")
    purchase_id = purchase["purchase_id"]
    if event.live != purchase["live"]:
        return Result(WRONG_MODE, f"livemode is {event.live}", purchase_id)
    if event.session != purchase["session_id"]:
        return Result(OTHER_SESSION, "the purchase belongs to another session", purchase_id)
    if event.fact is not None and not event.payment_intent:
        return Result(NO_PAYMENT, "the session has no payment", purchase_id)
    return None


async def _facts_added(connection: Any, event: StripeEvent, purchase: Any) -> Result:
    intent = event.payment_intent
    await connection.execute(_PAYMENT_ROW, intent)
    row = await connection.fetchrow(_PAYMENT, intent)
    if row["purchase_id"] is not None:
        if purchase is not None and purchase["purchase_id"] != row["purchase_id"]:
            return Result(OTHER_SESSION, "the payment belongs to another purchase", purchase["purchase_id"])
        purchase = await connection.fetchrow(_BY_ID, row["purchase_id"])
    payment = merged_payment(_facts_of(row["facts"]), event.fact or Payment())
    posted, postings = row["posted"], row["postings"]
    result = Result(STRIPE_WAITING)
    if purchase is not None:
        offer = Offer(purchase["credits"], purchase["price"], purchase["currency"])
        due = credits_due(payment, offer)
        result = Result(STRIPE_UNCHANGED, "", purchase["purchase_id"])
        if due != posted:
            postings += 1
            await _post(connection, event, purchase, due - posted, postings)
            posted, result = due, result._replace(outcome=STRIPE_APPLIED)
        if event.fact is not None and event.fact.paid is not None:
            if fits(payment, offer):
                await connection.execute(_ENDING, purchase["purchase_id"], "paid")
            else:
                result = result._replace(outcome=WRONG_AMOUNT, detail=_amounts(event.fact, offer))
    purchase_id = None if purchase is None else purchase["purchase_id"]
    await connection.execute(_STORED, intent, purchase_id, msgspec.json.encode(payment).decode(), posted, postings)
    return result


async def _post(connection: Any, event: StripeEvent, purchase: Any, credits_: Decimal, posting: int) -> None:
    """Post the difference. The first movement is the purchase, a decrease is a refund, a later increase is an
    adjustment.
    """
    kind = "refund" if credits_ < 0 else "purchase" if posting == 1 else "adjustment"
    metadata = {
        "idempotency_key": key_of_parts("stripe", event.payment_intent, str(posting)),
        "purchase_id": str(purchase["purchase_id"]),
        "stripe_event": event.event_id,
        "stripe_event_type": event.event_type,
    }
    details = (event.payment_intent, purchase["package_id"], json.dumps(metadata))
    await connection.execute(_POST, purchase["account"], credits_, kind, *details)
    await connection.execute(_LINK, purchase["account"])


async def _purchase_of(connection: Any, event: StripeEvent) -> Any:
    """Return the purchase that a session names; None = unknown. An offer never changes, so its row is not locked."""
    try:
        named = UUID(event.purchase) if event.purchase else None
    except ValueError:
        named = None
    if not event.session:
        return None
    found = await connection.fetch(_PURCHASE, named, event.session or None)
    return next((row for row in found if row["purchase_id"] == named), found[0] if found else None)


def _amounts(paid: Payment, offer: Offer) -> str:
    return f"paid {paid.paid} {paid.currency}, offered for {offer.price} {offer.currency}"
