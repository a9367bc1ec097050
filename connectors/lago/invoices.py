"""Requests about invoices: lists them, reads one, and gets its PDF and its payment link."""

from dataclasses import replace
from typing import Any

import msgspec

from connectors.lago.errors import LagoIntegrationError
from connectors.lago.requests import ChangePreview, PreviewOf
from connectors.lago.transport import LagoTransport, Page, Query, safe, under

#: Statuses with which Lago refuses a preview of an invoice.
_NO_PREVIEW = frozenset({403, 405, 422})


class FeeItem(msgspec.Struct, frozen=True):
    """The subject of a fee: `type` is `subscription` or `charge`; `code` is the code of the plan or of the metric.

    Fields:
        grouped_by: the values of the group of this fee, if the charge groups its events.
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
    """The period of a subscription that an invoice bills: the events with a timestamp from `charges_from_datetime` to
    `charges_to_datetime`, both included, in whole seconds.
    """

    lago_subscription_id: str | None = None
    charges_from_datetime: str | None = None
    charges_to_datetime: str | None = None


class Payer(msgspec.Struct, frozen=True):
    """The customer of an invoice."""

    external_id: str = ""


class Invoice(msgspec.Struct, frozen=True):
    """An invoice; money in the smallest unit of `currency`, days in UTC.

    Fields:
        status: `draft`, `finalized`, `voided`, `failed` or `pending`.
        payment_status: `pending`, `succeeded` or `failed`; an invoice of 0 is `succeeded`.
        file_url: URL of the PDF; None until Lago has made it.
        fees, billing_periods: only in the response to a request for one invoice.
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
    """The invoice of a change of plan; money in the smallest unit of `currency`, after coupons and credits.

    Fields:
        issuing_date: today, or the day after the running period.
        credit_notes_amount_cents, prepaid_credit_amount_cents, coupons_amount_cents: deductions.
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
        """Return at most `most` invoices without fees, the latest first. Raises: LagoIntegrationError.

        Args:
            external_customer_id, status, payment_status: `""` = any.
            issued_from: only invoices issued on this day (`2026-04-30`) or later; `""` = any.
        """
        parameters = {
            "external_customer_id": self.in_lago(external_customer_id),
            "status": status,
            "payment_status": payment_status,
            "issuing_date_from": issued_from,
        }
        query: Query = {name: value for name, value in parameters.items() if value}
        listed = await self._every("invoices", "/invoices", "invoices", Invoice, query, most)
        return [self._invoice_of_org(invoice) for invoice in listed]

    async def invoices_page(self, external_customer_id: str, number: int, size: int) -> Page[Invoice]:
        """Return a page of a customer's invoices without fees, the latest first. Raises: LagoIntegrationError."""
        query: Query = {"external_customer_id": self.in_lago(external_customer_id)}
        page = await self._page("invoices", "/invoices", "invoices", Invoice, query, number=number, size=size)
        return replace(page, members=[self._invoice_of_org(invoice) for invoice in page.members])

    async def predicted(self, preview: ChangePreview) -> InvoicePreview | None:
        """Return Lago's preview of the invoice of a change of plan; None if this Lago makes none.

        Lago needs a licence for previews (otherwise it answers 403, or 405 `premium_integration_missing`). It refuses
        plans that do not fit into one invoice, e.g. with periods that end at different times (422).

        Raises:
            LagoRejected: code `customer_not_found`, `subscription_not_found`, `plan_not_found`.
            LagoIntegrationError
        """
        try:
            payer = PreviewOf(external_id=self.in_lago(preview.customer.external_id))
            asked = msgspec.structs.replace(preview, customer=payer)
            body = await self._request("preview", "POST", "/invoices/preview", asked)
        except LagoIntegrationError as error:
            if error.status not in _NO_PREVIEW and error.code != "resource_not_found":
                raise
            return None
        return under("preview", body, "invoice", InvoicePreview)

    async def invoice(self, lago_id: str) -> Invoice | None:
        """Return an invoice with its fees; None if it does not exist. Raises: LagoIntegrationError."""
        found = await self._get_or_none("invoice", f"/invoices/{safe(lago_id)}", "invoice", Invoice)
        return None if found is None else self._invoice_of_org(found)

    async def download(self, lago_id: str) -> Invoice | None:
        """Return the invoice with its `file_url`; None while Lago makes the PDF. Repeat the call some seconds later.

        Raises:
            LagoRejected: code `invoice_not_found`; also if the invoice is not finalized.
            LagoIntegrationError
        """
        body = await self._request("download", "POST", f"/invoices/{safe(lago_id)}/download")
        return self._invoice_of_org(under("download", body, "invoice", Invoice)) if body.strip() else None

    async def payment_url(self, lago_id: str) -> str | None:
        """Return a link where the invoice can be paid; None if its payment provider has none.

        Raises:
            LagoRejected: code `invoice_not_found`; or on `base` `no_linked_payment_provider`,
                `invalid_payment_provider`, `invalid_invoice_status_or_payment_status`, `missing_payment_provider`,
                `missing_payment_provider_customer`.
            LagoIntegrationError
        """
        path = f"/invoices/{safe(lago_id)}/payment_url"
        return (await self._one("payment_url", path, "invoice_payment_details", _Payment, verb="POST")).payment_url

    def _invoice_of_org(self, invoice: Invoice) -> Invoice:
        """Replace the customer's id in the invoice by the key of its org."""
        if not self.organization_name or invoice.customer is None:
            return invoice
        return msgspec.structs.replace(invoice, customer=Payer(self.named(invoice.customer.external_id)))
