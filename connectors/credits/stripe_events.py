"""Reads an event of Stripe's webhook into a fact about one payment. Members that are not needed are not read.

Source of the shapes: https://docs.stripe.com/api/events/types, and the objects `checkout.session`, `charge`, `dispute` there.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec

from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected
from streams.core.payments.payment import Dispute, Payment

#: The member of `metadata` by which Stripe's objects name our purchase.
PURCHASE: Final = "meterbridge_purchase"
_MAX_ID: Final = 255


#: An amount in the smallest unit of a currency; Stripe's own limit has 12 digits.
_Amount = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class _Reference(msgspec.Struct):
    """An object that Stripe has put in place of its id."""

    id: str


_Id = str | _Reference | None


class _Data(msgspec.Struct):
    object: msgspec.Raw


class _Event(msgspec.Struct):
    id: str
    type: str
    livemode: bool
    data: _Data


class _Session(msgspec.Struct):
    id: str
    payment_intent: _Id = None
    payment_status: str = ""
    amount_total: _Amount | None = None
    currency: str | None = None
    metadata: dict[str, Any] | None = None


class _Charge(msgspec.Struct):
    amount_refunded: _Amount
    payment_intent: _Id = None


class _Dispute(msgspec.Struct):
    id: str
    amount: _Amount
    currency: str
    status: str
    payment_intent: _Id = None


class StripeEvent(msgspec.Struct, frozen=True):
    """One event.

    Fields:
        payment_intent: Stripe's id of the payment; `""` = the event names none.
        purchase: the id of our purchase, as the session's metadata has it; `""` = none. Only a session says what a payment is for.
        session: Stripe's id of the Checkout session; `""` = the event is about no session.
        fact: the fact about the payment; None = the event does not change its credits.
        ending: `expired` or `failed` if the session ends without a payment.
    """

    event_id: str
    event_type: str
    live: bool
    payment_intent: str = ""
    purchase: str = ""
    session: str = ""
    fact: Payment | None = None
    ending: str = ""


def read_event(body: bytes) -> StripeEvent:
    """Read the event in a body with a verified signature.

    Raises:
        Rejected: `stripe_event_unreadable`: the body is not an event, or an object has an unexpected form.
    """
    try:
        event = _decode(body)
        read = _READERS.get(event.type) or _by_prefix(event.type)
        fields = read(event.data.object) if read is not None else {}
        found = StripeEvent(event.id, event.type[:_MAX_ID], event.livemode, **fields)
    except UNDECODABLE as error:
        raise Rejected("stripe_event_unreadable", "the event has another form than expected") from error
    if not found.event_id or len(found.event_id) > _MAX_ID or len(found.payment_intent) > _MAX_ID:
        raise Rejected("stripe_event_unreadable", "the event has no usable id")
    return found


def _by_prefix(event_type: str) -> Callable[[msgspec.Raw], dict[str, Any]] | None:
    return _disputed if event_type.startswith("charge.dispute.") else None


def _paid(raw: msgspec.Raw) -> dict[str, Any]:
    """Return the fact of a completed session. It may still wait for its payment, which a later event announces."""
    session = msgspec.json.decode(raw, type=_Session)
    fact = None
    if session.payment_status == "paid":
        fact = Payment(session.amount_total or 0, session.currency or "")
    return {**_of_session(session), "fact": fact}


def _expired(raw: msgspec.Raw) -> dict[str, Any]:
    return {**_of_session(msgspec.json.decode(raw, type=_Session)), "ending": "expired"}


def _failed(raw: msgspec.Raw) -> dict[str, Any]:
    return {**_of_session(msgspec.json.decode(raw, type=_Session)), "ending": "failed"}


def _refunded(raw: msgspec.Raw) -> dict[str, Any]:
    """Return the fact of a refund; `amount_refunded` is the sum of all refunds of the charge."""
    charge = msgspec.json.decode(raw, type=_Charge)
    intent = _id(charge.payment_intent)
    return {"payment_intent": intent, "fact": Payment(refunded=charge.amount_refunded) if intent else None}


def _disputed(raw: msgspec.Raw) -> dict[str, Any]:
    dispute = msgspec.json.decode(raw, type=_Dispute)
    intent = _id(dispute.payment_intent)
    disputes = {dispute.id: Dispute(dispute.amount, dispute.currency, dispute.status)}
    return {"payment_intent": intent, "fact": Payment(disputes=disputes) if intent else None}


def _of_session(session: _Session) -> dict[str, Any]:
    return {
        "payment_intent": _id(session.payment_intent),
        "purchase": _purchase(session.metadata),
        "session": session.id,
    }


def _id(reference: _Id) -> str:
    return reference.id if isinstance(reference, _Reference) else reference or ""


def _purchase(metadata: Mapping[str, Any] | None) -> str:
    named = (metadata or {}).get(PURCHASE)
    return named if isinstance(named, str) else ""


_READERS: Final[Mapping[str, Callable[[msgspec.Raw], dict[str, Any]]]] = {
    "checkout.session.completed": _paid,
    "checkout.session.async_payment_succeeded": _paid,
    "checkout.session.async_payment_failed": _failed,
    "checkout.session.expired": _expired,
    "charge.refunded": _refunded,
}
_decode = msgspec.json.Decoder(_Event).decode
