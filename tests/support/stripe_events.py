"""Stripe's webhooks as Stripe sends them: small objects in the shapes of its public API reference, signed as it signs."""

import hmac
import json
import time
from hashlib import sha256
from itertools import count
from typing import Any

SECRET = "whsec_" + "of-the-tests"
_numbers = count(1)


def event(kind: str, obj: dict[str, Any], event_id: str = "", *, live: bool = False) -> dict[str, Any]:
    """Return an event about an object."""
    return {
        "id": event_id or f"evt_{next(_numbers)}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": 1_795_000_000,
        "data": {"object": obj},
        "livemode": live,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }


def session(
    purchase: str, session_id: str, intent: str | None = "pi_1", amount: int = 1000, **changes: Any
) -> dict[str, Any]:
    """Return a Checkout session that is paid."""
    result = {
        "id": session_id,
        "object": "checkout.session",
        "amount_subtotal": amount,
        "amount_total": amount,
        "client_reference_id": purchase,
        "currency": "usd",
        "livemode": False,
        "metadata": {"meterbridge_purchase": purchase},
        "mode": "payment",
        "payment_intent": intent,
        "payment_status": "paid",
        "status": "complete",
        "url": None,
    }
    return result | changes


def charge(refunded: int, intent: str | None = "pi_1", amount: int = 1000, **changes: Any) -> dict[str, Any]:
    """Return a charge of which `refunded` was refunded in all."""
    result = {
        "id": "ch_1",
        "object": "charge",
        "amount": amount,
        "amount_captured": amount,
        "amount_refunded": refunded,
        "currency": "usd",
        "livemode": False,
        "metadata": {},
        "paid": True,
        "payment_intent": intent,
        "refunded": refunded == amount,
        "status": "succeeded",
    }
    return result | changes


def dispute(status: str, intent: str | None = "pi_1", amount: int = 1000, **changes: Any) -> dict[str, Any]:
    """Return a dispute about a charge."""
    result = {
        "id": "dp_1",
        "object": "dispute",
        "amount": amount,
        "charge": "ch_1",
        "currency": "usd",
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": intent,
        "reason": "fraudulent",
        "status": status,
    }
    return result | changes


def signed(body: bytes, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """Return the header, computed from Stripe's description of it and without Stripe's library."""
    moment = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, sha256).hexdigest()
    return {"Stripe-Signature": f"t={moment},v1={digest},v0={'0' * 64}"}


def body_of(told: dict[str, Any]) -> bytes:
    """Return the event as text, indented as Stripe writes it: the signature is over these bytes."""
    return json.dumps(told, indent=2).encode()
