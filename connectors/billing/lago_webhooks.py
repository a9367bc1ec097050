"""Handles Lago's webhooks.

A webhook may arrive late, twice, in another order, or from an attacker who recorded it. So only the org's id is read
from it, and Lago is asked for the state of the org. There is one exception: Lago has no request for the events that it
does not bill. This list is taken from the webhook, and stored as the last state of these events
(streams/core/delivery/event_states.py).
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from connectors.billing.org_sync import OrgSynchroniser
from connectors.billing.unbillable_events import UnbillableEvents
from schemas.reasons import APPLIED, IGNORED, NOTED, UNKNOWN_TYPE

_log = structlog.get_logger(__name__)

Payload = dict[str, Any]
_MOST_WORDS: Final = 255
#: The fields of an object in a webhook that are logged: its id and its state.
_LOGGED_FIELDS: Final = (
    "lago_id",
    "status",
    "payment_status",
    "invoice_type",
    "number",
    "currency",
    "total_amount_cents",
)
_TROUBLE: Final = ("failure", "error", "dispute", "overdue", "depleted", "incomplete")


class WebhookHandlers:
    """Has one method for each type of webhook. Each takes the whole envelope and returns one of `WEBHOOK_OUTCOMES`.

    Each raises Unavailable if Lago or Kafka does not answer. Lago must then send the webhook again.

    Args:
        org_key: returns the key of the org with this external id in the Lago organisation that sends the webhooks.
    """

    def __init__(
        self,
        orgs: OrgSynchroniser,
        refusals: UnbillableEvents,
        org_key: Callable[[str], str] = lambda external_id: external_id,
    ) -> None:
        self._org_key = org_key
        self._orgs = orgs
        self._refusals = refusals
        self.by_type: Mapping[str, Callable[[Payload], Awaitable[str]]] = {
            "subscription.started": self.handle_subscription_started,
            "subscription.terminated": self.handle_subscription_terminated,
            "subscription.updated": self.handle_subscription_updated,
            "customer.created": self.handle_customer_created,
            "customer.updated": self.handle_customer_updated,
            "events.errors": self.handle_events_errors,
        }
        self._by_kind: Mapping[str, Callable[[Payload], Awaitable[str]]] = {
            "subscription": self.handle_subscription_updated,
            **dict.fromkeys(("customer", "payment", "payment_request"), self.handle_customer_event),
            **dict.fromkeys(("invoice", "fee", "credit_note"), self.handle_invoice_event),
            **dict.fromkeys(("wallet", "wallet_transaction"), self.handle_wallet_event),
        }

    async def handle(self, payload: Payload) -> str:
        """Call the handler of the webhook's type. An unknown type is logged."""
        name = kind_of(payload)
        handler = self.by_type.get(name) or self._by_kind.get(name.partition(".")[0])
        if handler is None:
            _log.info("lago_webhook_unknown", type=name)
            return UNKNOWN_TYPE
        return await handler(payload)

    async def handle_subscription_created(self, payload: Payload) -> str:
        """Handle the start of a subscription: refresh the org, so that held usage is billed."""
        return await self._refreshed(payload)

    async def handle_subscription_started(self, payload: Payload) -> str:
        """Handle the same event under Lago's second name."""
        return await self.handle_subscription_created(payload)

    async def handle_subscription_terminated(self, payload: Payload) -> str:
        """Handle the end of a subscription or a change of its plan: refresh the org, so that no later usage is sent to
        it.
        """
        return await self._refreshed(payload)

    async def handle_subscription_updated(self, payload: Payload) -> str:
        """Handle a change of a subscription: refresh the org."""
        return await self._refreshed(payload)

    async def handle_customer_created(self, payload: Payload) -> str:
        """Handle a new customer: refresh the org."""
        return await self._refreshed(payload)

    async def handle_customer_updated(self, payload: Payload) -> str:
        """Handle a customer's new name, address or currency: refresh the org."""
        return await self._refreshed(payload)

    async def handle_customer_event(self, payload: Payload) -> str:
        """Log an event about a payment or a payment provider."""
        return _noted(payload)

    async def handle_invoice_event(self, payload: Payload) -> str:
        """Log an event about an invoice. Nothing is stored, because invoices are read from Lago when they are shown."""
        return _noted(payload)

    async def handle_wallet_event(self, payload: Payload) -> str:
        """Log an event about a wallet."""
        return _noted(payload)

    async def handle_events_errors(self, payload: Payload) -> str:
        """Store a failed receipt for each event of the last hour that Lago cannot count and does not bill."""
        errors = payload.get("events_errors")
        lists = errors if isinstance(errors, dict) else {}
        named = {
            reason: [one for one in ids if isinstance(one, str)]
            for reason, ids in lists.items()
            if isinstance(ids, list) and ids
        }
        return APPLIED if await self._refusals.unbillable(named) else IGNORED

    async def _refreshed(self, payload: Payload) -> str:
        external_id = org_of(payload)
        org_id = self._org_key(external_id)
        known = bool(external_id) and await self._orgs.refresh(org_id)
        if known:
            _log.info("lago_webhook_applied", type=kind_of(payload), org=org_id)
        return APPLIED if known else IGNORED


def kind_of(payload: Payload) -> str:
    """Return the webhook's type; `""` = it has none."""
    return str(payload.get("webhook_type") or "")[:_MOST_WORDS]


def org_of(payload: Payload) -> str:
    """Return the customer's external id from any of the places where Lago's webhooks have it; `""` = there is none."""
    member = payload.get(str(payload.get("object_type")))
    webhook_object = member if isinstance(member, dict) else {}
    inner = (one.get("customer") for one in (payload, webhook_object))
    customers = [one.get("external_id") for one in inner if isinstance(one, dict)]
    own = webhook_object.get("external_id") if payload.get("object_type") == "customer" else None
    candidates = (webhook_object.get("external_customer_id"), *customers, own)
    return next((candidate for candidate in candidates if isinstance(candidate, str) and candidate), "")


def _noted(payload: Payload) -> str:
    name = kind_of(payload)
    member = payload.get(str(payload.get("object_type")))
    webhook_object = member if isinstance(member, dict) else {}
    fields = {
        field: webhook_object[field] for field in _LOGGED_FIELDS if isinstance(webhook_object.get(field), str | int)
    }
    trouble = any(word in name for word in _TROUBLE)
    _log.log(
        logging.WARNING if trouble else logging.INFO, "lago_webhook_noted", type=name, org=org_of(payload), **fields
    )
    return NOTED
