"""Requests about invoices: lists them, reads one, and gets its PDF and its payment link."""

from dataclasses import replace

import msgspec

from connectors.lago.errors import LagoIntegrationError
from connectors.lago.requests import ChangePreview, PreviewOf
from connectors.lago.responses import Invoice, InvoicePreview, Payer
from connectors.lago.transport import LagoTransport, Page, Query, safe, under

#: Statuses with which Lago refuses a preview of an invoice.
_NO_PREVIEW = frozenset({403, 405, 422})


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
