"""What is done about each of Lago's webhooks.

A webhook may come late, twice, before an earlier one, or from whoever caught it on its way. So none is believed: it
only says where to look, and Lago is asked what is true now. What Lago cannot be asked, which events it will not bill,
is written down as its last word about them (streams/core/delivery/event_states.py).
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from connectors.billing.org_sync import OrgSynchroniser
from connectors.billing.unbillable_events import UnbillableEvents
from schemas.reasons import APPLIED, IGNORED, NOTED, UNKNOWN_TYPE

_log = structlog.get_logger(__name__)

#: What became of a webhook: done, about nobody we know, of a type that is only told, of one that is unknown here, done
#: before.

Payload = dict[str, Any]
_MOST_WORDS: Final = 255
#: Of an object in a webhook: what tells which one it is, and how it is.
_TOLD: Final = ("lago_id", "status", "payment_status", "invoice_type", "number", "currency", "total_amount_cents")
_TROUBLE: Final = ("failure", "error", "dispute", "overdue", "depleted", "incomplete")


class WebhookHandlers:
    """One method a type of webhook. Each takes the whole envelope, and returns one of `WEBHOOK_OUTCOMES`.

    All of them raise Unavailable: it is not done, and to be sent again.
    """

    def __init__(self, orgs: OrgSynchroniser, refusals: UnbillableEvents) -> None:
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
        """By its type; one that is unknown is told, and nothing is done."""
        name = kind_of(payload)
        handler = self.by_type.get(name) or self._by_kind.get(name.partition(".")[0])
        if handler is None:
            _log.info("lago_webhook_unknown", type=name)
            return UNKNOWN_TYPE
        return await handler(payload)

    async def handle_subscription_created(self, payload: Payload) -> str:
        """A subscription runs: usage that was held for it is billed."""
        return await self._refreshed(payload)

    async def handle_subscription_started(self, payload: Payload) -> str:
        """Lago's name for `handle_subscription_created`."""
        return await self.handle_subscription_created(payload)

    async def handle_subscription_terminated(self, payload: Payload) -> str:
        """A subscription has ended, or another plan takes its place: usage after its end is not sent to it."""
        return await self._refreshed(payload)

    async def handle_subscription_updated(self, payload: Payload) -> str:
        """A subscription is another one than it was."""
        return await self._refreshed(payload)

    async def handle_customer_created(self, payload: Payload) -> str:
        """A customer has come to Lago."""
        return await self._refreshed(payload)

    async def handle_customer_updated(self, payload: Payload) -> str:
        """A customer has another name, address or currency."""
        return await self._refreshed(payload)

    async def handle_customer_event(self, payload: Payload) -> str:
        """Payment providers and payments: told in the log."""
        return _noted(payload)

    async def handle_invoice_event(self, payload: Payload) -> str:
        """Invoices are Lago's and are asked for when somebody wants to see them: told in the log."""
        return _noted(payload)

    async def handle_wallet_event(self, payload: Payload) -> str:
        """Wallets are Lago's: told in the log."""
        return _noted(payload)

    async def handle_events_errors(self, payload: Payload) -> str:
        """Events of the last hour that Lago took and will not bill, for it cannot count them."""
        found = payload.get("events_errors")
        lists = found if isinstance(found, dict) else {}
        named = {
            reason: [one for one in ids if isinstance(one, str)]
            for reason, ids in lists.items()
            if isinstance(ids, list) and ids
        }
        return APPLIED if await self._refusals.unbillable(named) else IGNORED

    async def _refreshed(self, payload: Payload) -> str:
        org_id = org_of(payload)
        known = bool(org_id) and await self._orgs.refresh(org_id)
        if known:
            _log.info("lago_webhook_applied", type=kind_of(payload), org=org_id)
        return APPLIED if known else IGNORED


def kind_of(payload: Payload) -> str:
    """The webhook's type; `""` where it has none."""
    return str(payload.get("webhook_type") or "")[:_MOST_WORDS]


def org_of(payload: Payload) -> str:
    """The customer's external id, wherever the webhook's object has it; `""` where it has none."""
    found = payload.get(str(payload.get("object_type")))
    thing = found if isinstance(found, dict) else {}
    inner = (one.get("customer") for one in (payload, thing))
    customers = [one.get("external_id") for one in inner if isinstance(one, dict)]
    own = thing.get("external_id") if payload.get("object_type") == "customer" else None
    candidates = (thing.get("external_customer_id"), *customers, own)
    return next((one for one in candidates if isinstance(one, str) and one), "")


def _noted(payload: Payload) -> str:
    name = kind_of(payload)
    found = payload.get(str(payload.get("object_type")))
    thing = found if isinstance(found, dict) else {}
    told = {field: thing[field] for field in _TOLD if isinstance(thing.get(field), str | int)}
    tell = _log.warning if any(word in name for word in _TROUBLE) else _log.info
    tell("lago_webhook_noted", type=name, org=org_of(payload), **told)
    return NOTED
