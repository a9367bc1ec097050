"""The endpoints of invoices: list, read, make a PDF, pay.

Source: `app/controllers/api/v1/invoices_controller.rb`, `app/controllers/concerns/invoice_index.rb`,
`app/services/invoices/payments/generate_payment_url_service.rb` of lago-api.
"""

from aiohttp import web
from multidict import MultiMapping

from connectors.lago_sandbox.answers import json_answer, page, read_whole
from connectors.lago_sandbox.customer_routes import CUSTOMER, customer_of
from connectors.lago_sandbox.instants import day
from connectors.lago_sandbox.invoices import SandboxInvoice
from connectors.lago_sandbox.preview import preview_request_of, previewed
from connectors.lago_sandbox.refusals import forbidden, invalid_field, not_found
from connectors.lago_sandbox.state import Sandbox

_INVOICE = "/api/v1/invoices/{lago_id}"


class InvoiceRoutes:
    """Everything below `/api/v1/invoices`."""

    def __init__(self, sandbox: Sandbox, *, premium: bool = False) -> None:
        self._sandbox = sandbox
        self._premium = premium

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, with their handlers."""
        return [
            web.get("/api/v1/invoices", self.invoices),
            web.get(CUSTOMER + "/invoices", self.customer_invoices),
            web.post("/api/v1/invoices/preview", self.preview),
            web.get(_INVOICE, self.invoice),
            web.post(_INVOICE + "/download", self.download),
            web.post(_INVOICE + "/download_pdf", self.download),
            web.post(_INVOICE + "/payment_url", self.payment_url),
        ]

    async def invoices(self, request: web.Request) -> web.Response:
        """List invoices, filtered by `external_customer_id`, `status`, `payment_status`, `currency`,
        `issuing_date_from`, `issuing_date_to`.
        """
        return self._listed(request, request.query.get("external_customer_id"))

    async def customer_invoices(self, request: web.Request) -> web.Response:
        """Answer as `GET /invoices` for one customer."""
        return self._listed(request, customer_of(self._sandbox, request).external_id)

    async def invoice(self, request: web.Request) -> web.Response:
        """Return one invoice, with its fees."""
        invoice = self._invoice(request)
        subscriptions, now_us = self._sandbox.subscriptions, self._sandbox.now_us()
        billed = invoice.bill.subscription
        body = {
            "subscriptions": [billed.shown(subscriptions.following(billed), now_us)],
            "billing_periods": invoice.billing_periods(),
            "fees": invoice.fees,
            "credits": [],
        }
        return json_answer({"invoice": invoice.shown(str(request.url.origin())) | body})

    async def preview(self, request: web.Request) -> web.Response:
        """Return the invoice that a change of plan would bring; without a licence 403, after the checks of the request."""
        request_body = preview_request_of(self._sandbox, await read_whole(request))
        if not self._premium:
            raise forbidden()
        return json_answer({"invoice": previewed(self._sandbox, request_body, str(request.url.origin()))})

    async def download(self, request: web.Request) -> web.Response:
        """Answer the first time with an empty 200, as Lago does while it makes the PDF; then with the invoice and its
        address.
        """
        invoice = self._invoice(request)
        if not invoice.made:
            invoice.made = True
            return web.Response()
        return json_answer({"invoice": invoice.shown(str(request.url.origin()))})

    async def payment_url(self, request: web.Request) -> web.Response:
        """Return a payment link, if the customer has a payment provider that gives links."""
        invoice = self._invoice(request)
        provider = invoice.customer.payment_provider
        if not provider:
            raise invalid_field("base", "no_linked_payment_provider")
        if provider == "gocardless":
            raise invalid_field("base", "invalid_payment_provider")
        if invoice.payment_status == "succeeded":
            raise invalid_field("base", "invalid_invoice_status_or_payment_status")
        details = {
            "lago_customer_id": invoice.customer.lago_id,
            "external_customer_id": invoice.customer.external_id,
            "payment_provider": provider,
            "lago_invoice_id": invoice.lago_id,
            "payment_url": f"{request.url.origin()}/pay/{invoice.lago_id}",
        }
        return json_answer({"invoice_payment_details": details})

    def _invoice(self, request: web.Request) -> SandboxInvoice:
        lago_id = request.match_info["lago_id"]
        invoice = next((invoice for invoice in self._sandbox.current_invoices() if invoice.lago_id == lago_id), None)
        if invoice is None:
            raise not_found("invoice")
        return invoice

    def _listed(self, request: web.Request, customer_id: str | None) -> web.Response:
        invoices = [
            invoice
            for invoice in reversed(self._sandbox.current_invoices())
            if customer_id in (None, invoice.customer.external_id) and _fits(invoice, request.query)
        ]
        latest_first = sorted(invoices, key=lambda invoice: day(invoice.bill.at_us), reverse=True)
        page_members, meta = page(latest_first, request.query)
        url = str(request.url.origin())
        return json_answer({"invoices": [invoice.shown(url) for invoice in page_members], "meta": meta})


def _fits(invoice: SandboxInvoice, query: MultiMapping[str]) -> bool:
    issued = day(invoice.bill.at_us).isoformat()
    return (
        query.get("status", "finalized") == "finalized"
        and query.get("payment_status", invoice.payment_status) == invoice.payment_status
        and query.get("currency", invoice.currency) == invoice.currency
        and query.get("issuing_date_from", issued) <= issued <= query.get("issuing_date_to", issued)
    )
