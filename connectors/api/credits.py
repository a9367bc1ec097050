"""Prepaid credits over HTTP: see them, reserve them for a call, debit them, and buy more.

A reservation is not a change by an operator: there is one for each call of an LLM. So it has no line in the audit log;
`credit_reservations` and `credit_transactions` have all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID

from aiohttp import web

from connectors.api.credit_accounts import account_of
from connectors.api.credit_models import (
    MAX_BYTES,
    AuthorizeBody,
    BalanceShown,
    DebitBody,
    Debited,
    OfAccount,
    PackageShown,
    PackagesShown,
    PageOfAccount,
    PurchaseBody,
    PurchaseShown,
    RefusedPayment,
    RefusedPayments,
    RefusedQuery,
    Released,
    Reserved,
    TransactionShown,
    TransactionsShown,
)
from connectors.api.org_models import answer
from connectors.api.shown_rows import row_shown
from connectors.credits.ledger import NO_ACCOUNT, CreditLedger, DebitUsage
from connectors.credits.payments import StripePayments
from connectors.credits.purchases import Purchases, Wish
from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import NO_STORE
from connectors.http.own_user import own_endpoint
from connectors.http.problem import Problem
from schemas.money import EXACT, plain

PATH: Final = "/api/v1/credits"
READ, WRITE = "credits:read", "credits:write"
KEY: Final = "Idempotency-Key"
_MAX_KEY: Final = 255
PAGE_TO_PAY: Final = "a page where credits are paid for the account"


@dataclass(slots=True)
class CreditHandlers:
    """Everything below `/api/v1/credits`.

    Args:
        ledger, payments: return the store, or raise ConfigurationError if the deployment has no Postgres.
        purchases: the same, and also raises it if there is no key of Stripe's.
        overdraft: by how much the reservations of an account may exceed its credits, in dollars.
    """

    ledger: Callable[[], CreditLedger]
    payments: Callable[[], StripePayments]
    purchases: Callable[[], Purchases]
    overdraft: Decimal

    @own_endpoint(
        "GET",
        f"{PATH}/balance",
        READ,
        query=OfAccount,
        refuses={422: ("account_needed",)},
        answers={200: BalanceShown},
    )
    async def balance(self, authorized: AuthorizedRequest) -> web.Response:
        """Show the credits of an account."""
        held = await self.ledger().balance(account_of(authorized, READ, authorized.query.named))
        shown = BalanceShown(
            account=held.account,
            balance=plain(held.balance),
            reserved=plain(held.reserved),
            available=plain(EXACT.subtract(held.balance, held.reserved)),
            overdraft=plain(held.overdraft),
            tier=held.tier,
        )
        return answer(shown, headers=NO_STORE)

    @own_endpoint(
        "GET",
        f"{PATH}/transactions",
        READ,
        query=PageOfAccount,
        refuses={422: ("account_needed",)},
        answers={200: TransactionsShown},
    )
    async def transactions(self, authorized: AuthorizedRequest) -> web.Response:
        """List the transactions of an account, the latest first."""
        query: PageOfAccount = authorized.query
        account = account_of(authorized, READ, query.named)
        rows = await self.ledger().transactions(account, query.limit + 1, query.offset)
        shown = TransactionsShown(
            account=account,
            transactions=[TransactionShown(**row_shown(row)) for row in rows[: query.limit]],
            limit=query.limit,
            offset=query.offset,
            has_more=len(rows) > query.limit,
        )
        return answer(shown, headers=NO_STORE)

    @own_endpoint("GET", f"{PATH}/packages", READ, answers={200: PackagesShown})
    async def packages(self, authorized: AuthorizedRequest) -> web.Response:  # noqa: ARG002  # the same for everybody
        """List the packages that can be bought."""
        packages = [PackageShown(**row_shown(row)) for row in await self.ledger().packages()]
        return answer(PackagesShown(packages=packages))

    @endpoint(
        "POST",
        f"{PATH}/debit",
        WRITE,
        body=DebitBody,
        refuses={402: ("insufficient_credits",), 409: ("idempotency_conflict",), 422: ("account_needed",)},
        answers={200: Debited},
        sees_to_orgs=True,
        max_bytes=MAX_BYTES,
    )
    async def debit(self, authorized: AuthorizedRequest) -> web.Response:
        """Take credits that were used from an account, once for each `Idempotency-Key`."""
        body: DebitBody = authorized.body
        account, key = account_of(authorized, WRITE, body.named, own=False), _key_of(authorized)
        if key is None:
            raise Problem(400, "idempotency_key_needed", f"a debit needs the header {KEY}: the same key debits once")
        ledger = self.ledger()
        await authorized.changing(None, {"account": account, "debit": body.cost, "key": key})
        usage = DebitUsage(
            Decimal(body.cost),
            body.provider,
            body.model,
            body.prompt_tokens,
            body.completion_tokens,
            body.power_level,
            {**body.metadata, "debited_by": authorized.principal.actor},
        )
        done = await ledger.debit(account, usage, key)
        shown = Debited(account=account, transaction_id=done.transaction_id, new_balance=plain(done.new_balance))
        return answer(shown, headers=NO_STORE)

    @endpoint(
        "POST",
        f"{PATH}/authorize",
        WRITE,
        body=AuthorizeBody,
        refuses={402: ("insufficient_credits",), 409: ("idempotency_conflict",), 422: ("account_needed",)},
        answers={200: Reserved},
        sees_to_orgs=True,
        max_bytes=MAX_BYTES,
        per_call=True,
    )
    async def authorize(self, authorized: AuthorizedRequest) -> web.Response:
        """Reserve credits for a call that begins; 402 if the account's credits do not cover the estimate."""
        body: AuthorizeBody = authorized.body
        account = account_of(authorized, WRITE, body.named, own=False)
        made = await self.ledger().authorize(account, Decimal(body.estimate), body.ttl, body.call_id, self.overdraft)
        available = plain(made.available)
        if made.reservation_id is None:
            sentence = "the credits that are available do not cover the estimate" if made.is_known else NO_ACCOUNT
            raise Problem(402, "insufficient_credits", sentence, account=account, available=available)
        return answer(Reserved(account=account, reservation_id=made.reservation_id, available=available))

    @endpoint(
        "DELETE",
        f"{PATH}/authorize/{{reservation_id}}",
        WRITE,
        refuses={404: ("unknown_reservation",)},
        answers={200: Released},
        sees_to_orgs=True,
        per_call=True,
    )
    async def release(self, authorized: AuthorizedRequest) -> web.Response:
        """Give back what was reserved for a call that did not happen. Repeating it changes nothing."""
        ledger, reservation = self.ledger(), _uuid(authorized.part("reservation_id"))
        account = None if reservation is None else await ledger.account_of(reservation)
        if reservation is None or account is None:
            raise Problem(404, "unknown_reservation", "there is no such reservation")
        account_of(authorized, WRITE, account, own=False)
        return answer(Released(reservation_id=reservation, released=await ledger.release(reservation)))

    @own_endpoint(
        "POST",
        f"{PATH}/purchase",
        WRITE,
        body=PurchaseBody,
        refuses={
            404: ("unknown_package",),
            409: ("idempotency_conflict", "purchase_ended"),
            422: ("account_needed", "price_not_payable", "stripe_refused"),
        },
        answers={201: PurchaseShown},
        max_bytes=MAX_BYTES,
        hands_out=PAGE_TO_PAY,
    )
    async def purchase(self, authorized: AuthorizedRequest) -> web.Response:
        """Begin to buy a package: the answer has the page where it is paid. Credits come when Stripe reports the payment."""
        body: PurchaseBody = authorized.body
        account, key = account_of(authorized, WRITE, body.named), _key_of(authorized)
        purchases = self.purchases()
        await authorized.handing_out(PAGE_TO_PAY, account=account, package=str(body.package_id))
        wish = Wish(account, body.package_id, body.success_url, body.cancel_url, key, authorized.principal.actor)
        made = await purchases.buy(wish)
        shown = PurchaseShown(
            purchase_id=made.purchase_id,
            account=account,
            package_id=body.package_id,
            session_id=made.session_id,
            checkout_url=made.url,
        )
        return answer(shown, 201, NO_STORE)

    @endpoint("GET", f"{PATH}/refused-payments", READ, query=RefusedQuery, answers={200: RefusedPayments})
    async def refused(self, authorized: AuthorizedRequest) -> web.Response:
        """List Stripe's events about payments that gave no credits, the latest first."""
        rows = await self.payments().refused(authorized.query.limit)
        return answer(RefusedPayments(payments=[RefusedPayment(**row) for row in rows]), headers=NO_STORE)


def _key_of(authorized: AuthorizedRequest) -> str | None:
    """Return the idempotency key of the request; None = it has none. Raises: Problem 400 `bad_idempotency_key`."""
    key = authorized.request.headers.get(KEY)
    if key is not None and not (0 < len(key) <= _MAX_KEY and key.isascii() and key.isprintable()):
        raise Problem(400, "bad_idempotency_key", f"{KEY} must be 1 to {_MAX_KEY} printable ASCII characters")
    return key


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
