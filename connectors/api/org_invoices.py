"""Invoices of orgs over HTTP, page by page, with links to the PDF and to pay."""

import asyncio
from typing import Annotated, Any, Final, Self

from aiohttp import web
from pydantic import BaseModel, Field

from connectors.api.org_models import AttributesModel, Id, answer
from connectors.api.orgs import ORG, LinkShown
from connectors.billing.org_accounts import OrgAccounts
from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import NO_STORE
from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoIntegrationError, LagoRejected, reason_of
from connectors.lago.responses import Invoice
from connectors.lago.transport import Page

MAX_PAGE: Final = 100
#: Lago is asked for the links of this many invoices at the same time.
_AT_ONCE: Final = 4
#: How the audit log names these links.
PAYMENT, PAYMENTS = "a link to pay an invoice", "links to pay invoices"
#: Payment status of an invoice that is not paid yet.
_UNPAID: Final = ("pending", "failed")


class PageQuery(BaseModel):
    """A page of a list; the first is 1."""

    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    per_page: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 10


class InvoicesQuery(PageQuery):
    """A page of an org's invoices.

    Fields:
        links: whether to ask Lago for links that it has not made yet; up to two requests for each invoice.
    """

    links: bool = True


class PaymentQuery(BaseModel):
    """Which invoice to pay.

    Fields:
        invoice_id: Lago's id; default the oldest invoice that is not paid.
    """

    invoice_id: Id | None = None


class InvoiceShown(AttributesModel):
    """An invoice.

    Fields:
        lago_id: Lago's id of the invoice.
        number: the number on the invoice.
        issuing_date: the date on the invoice, `YYYY-MM-DD`.
        payment_due_date: when it must be paid, `YYYY-MM-DD`.
        payment_overdue: true: it is not paid, and that day is past.
        invoice_type: Lago's kind of invoice, e.g. `subscription` or `credit`.
        status: Lago's state of the invoice, e.g. `draft` or `finalized`.
        payment_status: `pending`, `succeeded` or `failed`.
        fees_amount_cents: sum of the fees before taxes, in the smallest unit of the currency.
        total_amount_cents: fees and taxes, in the smallest unit of the currency.
        total_due_amount_cents: what is still to be paid; null = Lago does not say.
        pdf_url: null until Lago has made the PDF; ask again some seconds later.
        payment_url: null if there is nothing to pay, or Lago gives no link; then `no_payment_url` says why.
        no_payment_url: why there is no link; null = there is one.
    """

    lago_id: str
    number: str
    issuing_date: str | None = None
    payment_due_date: str | None = None
    payment_overdue: bool = False
    invoice_type: str = ""
    status: str = ""
    payment_status: str = ""
    currency: str = ""
    fees_amount_cents: int = 0
    taxes_amount_cents: int = 0
    total_amount_cents: int = 0
    total_due_amount_cents: int | None = None
    pdf_url: str | None = None
    payment_url: str | None = None
    no_payment_url: str | None = None


class PageShown(BaseModel):
    """The position of this page in the list; `next_page` is null on the last page.

    Fields:
        page: the number of this page.
        per_page: the most entries on a page.
        next_page: the number of the next page; null = this is the last one.
        total_pages: how many pages there are.
        total_count: how many entries all pages have.
    """

    page: int
    per_page: int
    next_page: int | None
    total_pages: int
    total_count: int

    @classmethod
    def of(cls, query: PageQuery, page: Page[Any]) -> Self:
        """Return the position of the page that `query` asked for."""
        following = query.page + 1 if query.page < page.pages else None
        return cls(
            page=query.page,
            per_page=query.per_page,
            next_page=following,
            total_pages=page.pages,
            total_count=page.total,
        )


class InvoicesShown(BaseModel):
    """A page of invoices, the latest first."""

    invoices: list[InvoiceShown]
    meta: PageShown


class InvoiceHandlers:
    """`/invoices` and `/payment` of an org."""

    def __init__(self, accounts: OrgAccounts) -> None:
        self._accounts = accounts

    @endpoint(
        "GET",
        f"{ORG}/invoices",
        "invoices:read",
        query=InvoicesQuery,
        refuses={404: ("unknown_org",)},
        answers={200: InvoicesShown},
        hands_out=PAYMENTS,
    )
    async def invoices(self, authorized: AuthorizedRequest) -> web.Response:
        """List the org's invoices, the latest first."""
        return await listed(self._accounts, authorized, authorized.part("org_id"))

    @endpoint(
        "GET",
        f"{ORG}/payment",
        "invoices:read",
        query=PaymentQuery,
        refuses={404: ("unknown_invoice",), 422: ("no_payment_url",)},
        answers={200: LinkShown},
        hands_out=PAYMENT,
    )
    async def payment(self, authorized: AuthorizedRequest) -> web.Response:
        """Get a link where an invoice is paid."""
        query: PaymentQuery = authorized.query
        url = await _payable(self._accounts.billing.lago, authorized.part("org_id"), query.invoice_id)
        await authorized.handing_out(PAYMENT, invoice_id=query.invoice_id or "the oldest unpaid")
        return answer(LinkShown(url=url), headers=NO_STORE)


async def listed(accounts: OrgAccounts, authorized: AuthorizedRequest, org_id: str) -> web.Response:
    """Return a page of the customer's invoices. Raises: LagoRejected `unknown_org`, LagoIntegrationError."""
    query: InvoicesQuery = authorized.query
    lago = accounts.billing.lago
    page = await lago.invoices_page(org_id, query.page, query.per_page)
    if not page.total and not await accounts.is_known(org_id):
        await accounts.account(org_id)
    shown = [invoice_shown(member) for member in page.members]
    if query.links:
        gate = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(_link(lago, invoice, gate) for invoice in shown))
        if payable := [invoice.lago_id for invoice in shown if invoice.payment_url is not None]:
            await authorized.handing_out(PAYMENTS, invoice_ids=" ".join(payable))
    return answer(InvoicesShown(invoices=shown, meta=PageShown.of(query, page)), headers=NO_STORE)


def invoice_shown(invoice: Invoice) -> InvoiceShown:
    """Return an invoice with the links that Lago has made already."""
    shown = InvoiceShown.model_validate(invoice)
    shown.pdf_url = invoice.file_url
    return shown


async def _link(lago: LagoClient, invoice: InvoiceShown, gate: asyncio.Semaphore) -> None:
    """Add the links of one invoice. If Lago does not give a link, it stays null, so that the list is still returned."""
    async with gate:
        if invoice.pdf_url is None and invoice.status == "finalized":
            try:
                made = await lago.download(invoice.lago_id)
                invoice.pdf_url = made.file_url if made is not None else None
            except LagoIntegrationError:
                invoice.pdf_url = None
        if _is_payable(invoice):
            try:
                invoice.payment_url = await lago.payment_url(invoice.lago_id)
            except LagoIntegrationError as error:
                invoice.no_payment_url = _why(error)


def _is_payable(invoice: Invoice | InvoiceShown) -> bool:
    due = invoice.total_due_amount_cents
    owed = invoice.total_amount_cents if due is None else due
    return invoice.status == "finalized" and invoice.payment_status in _UNPAID and owed > 0


async def _payable(lago: LagoClient, org_id: str, lago_id: str | None) -> str:
    """Return the payment link of this invoice, default of the oldest unpaid one. Raises: LagoRejected
    `unknown_invoice`.
    """
    if lago_id is None:
        unpaid = [invoice for invoice in await lago.invoices(org_id, payment_status="pending") if _is_payable(invoice)]
        unpaid += [invoice for invoice in await lago.invoices(org_id, payment_status="failed") if _is_payable(invoice)]
        if not unpaid:
            raise LagoRejected("unknown_invoice", "the org has nothing to pay")
        lago_id = min(unpaid, key=lambda one: (one.issuing_date or "", one.number)).lago_id
    else:
        invoice = await lago.invoice(lago_id)
        if invoice is None or invoice.customer is None or invoice.customer.external_id != org_id:
            raise LagoRejected("unknown_invoice", "the org has no such invoice")
    url = await lago.payment_url(lago_id)
    if url is None:
        raise LagoRejected("no_payment_url", "the org's payment provider gives no link")
    return url


def _why(error: LagoIntegrationError) -> str:
    """Return Lago's code, e.g. `no_linked_payment_provider`, or our reason if Lago gave no code."""
    details = error.details if isinstance(error.details, dict) else {}
    codes = details.get("base")
    return str(codes[0]) if isinstance(codes, list) and codes else reason_of(error)
