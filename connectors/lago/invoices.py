"""Invoices: listed, read, as a PDF and as a link to pay by."""

import msgspec

from connectors.lago.errors import LagoUnavailable
from connectors.lago.wire import Query, Wire, safe


class FeeItem(msgspec.Struct, frozen=True):
    """What a fee is for: `type` is `subscription` or `charge`, `code` the plan's or the metric's."""

    type: str = ""
    code: str = ""
    name: str | None = None


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


class Invoice(msgspec.Struct, frozen=True):
    """An invoice; money in the smallest unit of `currency`, days in UTC.

    Fields:
        status: `draft`, `finalized`, `voided`, `failed` or `pending`.
        payment_status: `pending`, `succeeded` or `failed`; an invoice of nothing has succeeded.
        file_url: of the PDF, None until it is made.
        fees: only where one invoice was asked for.
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


class _Downloaded(msgspec.Struct):
    invoice: Invoice


class _Payment(msgspec.Struct):
    payment_url: str | None = None


class Invoices(Wire):
    """`/invoices`."""

    async def invoices(
        self, external_customer_id: str = "", status: str = "", payment_status: str = "", most: int | None = None
    ) -> list[Invoice]:
        """Of one customer or of all, latest first; their first `most`, without fees. Raises: LagoIntegrationError."""
        asked = {
            "external_customer_id": external_customer_id,
            "status": status,
            "payment_status": payment_status,
        }
        query: Query = {name: value for name, value in asked.items() if value}
        return await self._every("invoices", "/invoices", "invoices", Invoice, query, most)

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
        except msgspec.DecodeError as error:
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
