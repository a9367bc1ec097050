"""Sells packages of credits: stores each offer before the payment page is shown, and the accounts' customers at Stripe."""

import json
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

from connectors.credits.stripe_gateway import Order, PaymentGateway, Session
from connectors.postgres.pool import Database
from schemas.errors import Rejected
from schemas.money import add
from streams.core.payments.currency_units import smallest_units

#: Prices of packages are in this currency.
CURRENCY: Final = "usd"
_PACKAGE = "SELECT name, credits, bonus_credits, price_usd FROM credit_packages WHERE package_id = $1 AND active"
#: A repeat of a key waits for the first request, and finds its row.
_NEW = """
INSERT INTO credit_purchases (account, package_id, name, credits, price, currency, idempotency_key, contents, created_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (account, idempotency_key) DO NOTHING RETURNING purchase_id
"""
_KNOWN = """
SELECT purchase_id, package_id, name, credits, price, currency, session_id, contents, ending
FROM credit_purchases WHERE account = $1 AND idempotency_key = $2
"""
_SESSION = """
UPDATE credit_purchases SET session_id = $2, live = $3 WHERE purchase_id = $1 AND (session_id IS NULL OR session_id = $2)
"""
_CUSTOMER = """
SELECT COALESCE((SELECT stripe_customer_id FROM user_credits WHERE account = $1),
    (SELECT customer_id FROM stripe_customers WHERE account = $1))
"""
#: If two are made at the same time, the first one is kept.
_LINK = "INSERT INTO stripe_customers (account, customer_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"


class Wish(NamedTuple):
    """A requested purchase; `key` is the idempotency key of the request, None = it has none."""

    account: str
    package_id: int
    success_url: str
    cancel_url: str
    key: str | None
    by: str

    @property
    def contents(self) -> bytes:
        """SHA-256 of the values that a repeat with the same key must have."""
        return sha256(json.dumps([self.package_id, self.success_url, self.cancel_url]).encode()).digest()


class Purchase(NamedTuple):
    """A purchase that waits for its payment at `url`."""

    purchase_id: UUID
    session_id: str
    url: str


class _Offered(NamedTuple):
    purchase_id: UUID
    name: str
    price: int
    currency: str
    session_id: str | None


class Purchases:
    """Sells packages. All methods raise Unavailable if Postgres or Stripe does not answer. Repeat with the same key."""

    def __init__(self, database: Database, gateway: PaymentGateway) -> None:
        self._database = database
        self._gateway = gateway

    async def buy(self, wish: Wish) -> Purchase:
        """Return the purchase with its payment page. The same key returns the same purchase and the same page.

        The session's id is stored before the address is returned. So every payment finds its purchase, and a purchase
        has at most one session that can be paid.

        Raises:
            Rejected: `unknown_package`; `price_not_payable`; `idempotency_conflict`: the key was used for another purchase;
                `purchase_ended`: it is paid or expired; `stripe_refused`.
            ConfigurationError: Stripe refuses the key.
        """
        offered = await self._offered(wish)
        if offered.session_id is not None:
            session = await self._gateway.existing(offered.session_id)
        else:
            session = await self._session(wish, offered)
        if not session.url:
            raise Rejected("purchase_ended", "the purchase is paid, or its page has expired: take a new key")
        return Purchase(offered.purchase_id, session.session_id, session.url)

    async def _offered(self, wish: Wish) -> _Offered:
        async with self._database.lasting() as connection:
            package = await connection.fetchrow(_PACKAGE, wish.package_id)
            if package is not None:
                price = smallest_units(package["price_usd"], CURRENCY)
                total = add(package["credits"], package["bonus_credits"])
                offer = (package["name"], total, price, CURRENCY)
                made = await connection.fetchval(
                    _NEW, wish.account, wish.package_id, *offer, wish.key, wish.contents, wish.by
                )
                if made is not None:
                    return _Offered(made, package["name"], price, CURRENCY, None)
            known = await connection.fetchrow(_KNOWN, wish.account, wish.key)
        if known is None:
            raise Rejected(
                "unknown_package",
                "there is no such package, or it is not sold any more: GET /api/v1/credits/packages lists them",
            )
        if known["contents"] != wish.contents:
            raise Rejected("idempotency_conflict", "the key was used for another purchase: take a new one")
        return _Offered(known["purchase_id"], known["name"], known["price"], known["currency"], known["session_id"])

    async def _session(self, wish: Wish, offered: _Offered) -> Session:
        order = Order(
            str(offered.purchase_id), offered.name, offered.price, offered.currency, wish.success_url, wish.cancel_url
        )
        session = await self._gateway.session(order, await self._customer(wish.account))
        async with self._database.lasting() as connection:
            if await connection.execute(_SESSION, offered.purchase_id, session.session_id, session.live) != "UPDATE 1":
                raise Rejected("purchase_ended", "the purchase has another session: repeat the request")
        return session

    async def _customer(self, account: str) -> str:
        """Return the account's customer at Stripe. It is created once, and then stored."""
        async with self._database.connection() as connection:
            linked: str | None = await connection.fetchval(_CUSTOMER, account)
        if linked is not None:
            return linked
        made = await self._gateway.customer(account)
        async with self._database.lasting() as connection:
            await connection.execute(_LINK, account, made)
            stays: str = await connection.fetchval(_CUSTOMER, account)
        return stays
