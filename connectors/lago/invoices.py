"""Invoices: listed, read, as a PDF and as a link to pay by."""

from typing import Any

import msgspec

from connectors.lago.errors import LagoIntegrationError, LagoUnavailable
from connectors.lago.requests import ChangePreview
from connectors.lago.transport import LagoTransport, Page, Query, safe
from schemas.decoding import UNDECODABLE

#: Statuses by which Lago declines to foretell an invoice.
_NOT_TOLD = frozenset({403, 405, 422})


class FeeItem(msgspec.Struct, frozen=True):
    """What a fee is for: `type` is `subscription` or `charge`, `code` the plan's or the metric's.

    Fields:
        grouped_by: the values that its events share, where the charge makes a fee for each of them.
    """

    type: str = ""
    code: str = ""
    name: str | None = None
    grouped_by: Any = None


class Fee(msgspec.Struct, frozen=True):
    """One line of an invoice, before taxes."""

    amount_cents: int = 0
    amount_currency: str = ""
    units: str | float = "0"
    events_count: int | None = None
    external_subscription_id: str | None = None
    from_date: str | None = None
    to_date: str | None = None
    item: FeeItem = FeeItem()
    lago_subscription_id: str | None = None
    lago_charge_filter_id: str | None = None
    pay_in_advance: bool | None = None


class BillingPeriod(msgspec.Struct, frozen=True):
    """What an invoice counts of one subscription: events with a moment from `charges_from_datetime` to
    `charges_to_datetime`, both included and told to the second.
    """

    lago_subscription_id: str | None = None
    charges_from_datetime: str | None = None
    charges_to_datetime: str | None = None


class Payer(msgspec.Struct, frozen=True):
    """Whose invoice it is."""

    external_id: str = ""


class Invoice(msgspec.Struct, frozen=True):
    """An invoice; money in the smallest unit of `currency`, days in UTC.

    Fields:
        status: `draft`, `finalized`, `voided`, `failed` or `pending`.
        payment_status: `pending`, `succeeded` or `failed`; an invoice of nothing has succeeded.
        file_url: of the PDF, None until it is made.
        fees, billing_periods: only where one invoice was asked for.
    """

    lago_id: str
    number: str = ""
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
    file_url: str | None = None
    web_url: str | None = None
    fees: tuple[Fee, ...] = ()
    customer: Payer | None = None
    created_at: str | None = None
    billing_periods: tuple[BillingPeriod, ...] = ()


class InvoicePreview(msgspec.Struct, frozen=True):
    """The invoice that a change of plan would bring; money in the smallest unit of `currency`, after coupons and credits.

    Fields:
        issuing_date: today, or the day after the running period.
        credit_notes_amount_cents, prepaid_credit_amount_cents, coupons_amount_cents: what is taken off.
    """

    currency: str = ""
    issuing_date: str | None = None
    fees_amount_cents: int = 0
    taxes_amount_cents: int = 0
    coupons_amount_cents: int = 0
    credit_notes_amount_cents: int = 0
    prepaid_credit_amount_cents: int = 0
    total_amount_cents: int = 0
    fees: tuple[Fee, ...] = ()


class _Foretelling(msgspec.Struct):
    invoice: InvoicePreview


class _Downloaded(msgspec.Struct):
    invoice: Invoice


class _Payment(msgspec.Struct):
    payment_url: str | None = None


class InvoicesApi(LagoTransport):
    """`/invoices`."""

    async def invoices(
        self,
        external_customer_id: str = "",
        status: str = "",
        payment_status: str = "",
        most: int | None = None,
        issued_from: str = "",
    ) -> list[Invoice]:
        """Of one customer or of all, latest first; their first `most`, without fees; issued on that day (`2026-04-30`) or
        later. Raises: LagoIntegrationError.
        """
        asked = {
            "external_customer_id": external_customer_id,
            "status": status,
            "payment_status": payment_status,
            "issuing_date_from": issued_from,
        }
        query: Query = {name: value for name, value in asked.items() if value}
        return await self._every("invoices", "/invoices", "invoices", Invoice, query, most)

    async def invoices_page(self, external_customer_id: str, number: int, size: int) -> Page[Invoice]:
        """A page of one customer's, latest first, without fees. Raises: LagoIntegrationError."""
        query: Query = {"external_customer_id": external_customer_id}
        return await self._page("invoices", "/invoices", "invoices", Invoice, query, number=number, size=size)

    async def foretold(self, wanted: ChangePreview) -> InvoicePreview | None:
        """What Lago says that a change of plan would cost; None where this Lago does not tell.

        It needs a licence with the preview (403, or 405 `premium_integration_missing`), and is refused for plans
        that no one invoice can hold, e.g. with periods that end apart (422).

        Raises:
            LagoRejected: code `customer_not_found`, `subscription_not_found`, `plan_not_found`.
            LagoIntegrationError
        """
        try:
            body = await self._asked("preview", "POST", "/invoices/preview", wanted)
        except LagoIntegrationError as error:
            if error.status not in _NOT_TOLD and error.code != "resource_not_found":
                raise
            return None
        try:
            return msgspec.json.decode(body, type=_Foretelling).invoice
        except UNDECODABLE as error:
            raise LagoUnavailable("bad_answer", "preview: not the JSON that Lago answers") from error

    async def invoice(self, lago_id: str) -> Invoice | None:
        """With its fees; None where Lago knows none. Raises: LagoIntegrationError."""
        return await self._found("invoice", f"/invoices/{safe(lago_id)}", "invoice", Invoice)

    async def download(self, lago_id: str) -> Invoice | None:
        """The invoice with its `file_url`; None while Lago makes the PDF: ask again in some seconds.

        Raises:
            LagoRejected: code `invoice_not_found`, also while it is not finalized.
            LagoIntegrationError
        """
        body = await self._asked("download", "POST", f"/invoices/{safe(lago_id)}/download")
        if not body.strip():
            return None
        try:
            return msgspec.json.decode(body, type=_Downloaded).invoice
        except UNDECODABLE as error:
            raise LagoUnavailable("bad_answer", "download: not the JSON that Lago answers") from error

    async def payment_url(self, lago_id: str) -> str | None:
        """Where the invoice can be paid; None where its payment provider gives no link.

        Raises:
            LagoRejected: code `invoice_not_found`; or on `base` `no_linked_payment_provider`,
                `invalid_payment_provider`, `invalid_invoice_status_or_payment_status`, `missing_payment_provider`,
                `missing_payment_provider_customer`.
            LagoIntegrationError
        """
        path = f"/invoices/{safe(lago_id)}/payment_url"
        return (await self._one("payment_url", path, "invoice_payment_details", _Payment, verb="POST")).payment_url
