"""The credit endpoints and Stripe's webhook on a loopback port, with a real Postgres behind them and a scripted Stripe."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from connectors.api.credits import CreditHandlers
from connectors.api.stripe_webhooks import StripeWebhooks
from connectors.credits.ledger import CreditLedger
from connectors.credits.payments import StripePayments
from connectors.credits.purchases import Purchases
from connectors.credits.stripe_gateway import Order, Session
from connectors.http.endpoint import Principal, endpoints_of
from connectors.postgres.pool import Database
from schemas.errors import Unavailable
from tests.support.entrance import GuardedApp, Known, running_house
from tests.support.stripe_events import SECRET, body_of, session, signed
from tests.support.stripe_events import event as stripe_event

CREDITS = "/api/v1/credits"
URLS = {"success_url": "https://shop.example/ok", "cancel_url": "https://shop.example/no"}
#: Who calls, by token.
CALLERS = {
    "root": Principal("master key", frozenset({"*"})),
    "ada": Principal("user ada", user="ada", orgs=frozenset({"org_a"})),
    "bob": Principal("user bob", user="bob", orgs=frozenset()),
    "plugin": Principal("key plugin", frozenset({"credits:write"})),
    "reader": Principal("key reader", frozenset({"credits:read"})),
    "of_org_a": Principal("key a", frozenset({"credits:read", "credits:write"}), frozenset({"org_a"})),
    "nothing": Principal("key nothing", frozenset({"orgs:read"})),
}


@dataclass
class ScriptedStripe:
    """`PaymentGateway` in memory. As at Stripe, one idempotency key creates one session."""

    away: bool = False
    live: bool = False
    customers: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)
    paying: list[str] = field(default_factory=list)

    async def customer(self, account: str) -> str:
        self._answers()
        return self.customers.setdefault(account, f"cus_{len(self.customers) + 1}")

    async def session(self, order: Order, customer: str) -> Session:
        self._answers()
        if order.purchase_id not in self.sessions:
            self.orders.append(order)
            self.paying.append(customer)
            number = len(self.sessions) + 1
            created = Session(f"cs_test_{number}", f"https://checkout.stripe.com/c/pay/{number}", self.live)
            self.sessions[order.purchase_id] = created
        return self.sessions[order.purchase_id]

    async def existing(self, session_id: str) -> Session:
        self._answers()
        return next(one for one in self.sessions.values() if one.session_id == session_id)

    async def close(self) -> None:
        """Nothing is open."""

    def _answers(self) -> None:
        if self.away:
            raise Unavailable("stripe_away", "scripted")


@dataclass
class CreditApi:
    """A running credit API. `counted`: outcomes of Stripe's events."""

    house: GuardedApp
    stripe: ScriptedStripe
    counted: Counter[str]

    async def ask(
        self, verb: str, path: str, token: str = "root", status: int = 200, key: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Return the JSON of an answer of this status; `key` is the idempotency key."""
        headers = {"Authorization": f"Bearer {token}"} | ({} if key is None else {"Idempotency-Key": key})
        answer = await self.house.http.request(verb, f"{CREDITS}/{path}", headers=headers, timeout=60, **options)
        assert answer.status_code == status, (answer.status_code, answer.text)
        result: dict[str, Any] = answer.json()
        return result

    async def balance(self, account: str) -> Decimal:
        return Decimal((await self.ask("GET", "balance", params={"account": account}))["balance"])

    async def buy(self, token: str = "ada", package_id: int = 1, **more: Any) -> dict[str, Any]:
        """Make a purchase that waits for its payment; return it."""
        return await self.ask(
            "POST", "purchase", token, 201, json={"package_id": package_id} | URLS | more.pop("body", {}), **more
        )

    async def deliver(self, sent: dict[str, Any], status: int = 200, **headers: str) -> str:
        """Send a webhook; return the status or the reason of the response."""
        body = body_of(sent)
        answer = await self.house.http.post("/webhooks/stripe", content=body, headers=headers or signed(body))
        assert answer.status_code == status, (answer.status_code, answer.text)
        return str(answer.json()["status" if status == 200 else "reason"])

    async def pay(self, purchase: dict[str, Any], intent: str = "pi_1", amount: int = 1000, **changes: Any) -> str:
        """Report that a purchase is paid."""
        paid = session(purchase["purchase_id"], purchase["session_id"], intent, amount, **changes)
        return await self.deliver(stripe_event("checkout.session.completed", paid))


@asynccontextmanager
async def credit_api(
    url: str, overdraft: str = "0", secrets: tuple[str, ...] = ("whsec_" + "an-old-one", SECRET), connections: int = 4
) -> AsyncIterator[CreditApi]:
    """Yield a running credit API on the database at `url`."""
    stripe, counted, database = ScriptedStripe(), Counter[str](), Database(url, connections)

    def count(outcome: str) -> None:
        counted[outcome] += 1

    def payments() -> StripePayments:
        return StripePayments(database, count)

    handlers = CreditHandlers(
        lambda: CreditLedger(database), payments, lambda: Purchases(database, stripe), Decimal(overdraft)
    )
    endpoints = [*endpoints_of(handlers), *StripeWebhooks(payments, secrets, count).endpoints()]
    try:
        async with running_house([Known(CALLERS)], endpoints=endpoints) as house:
            yield CreditApi(house, stripe, counted)
    finally:
        database.terminate()
