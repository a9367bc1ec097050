"""The endpoints of customers: save, list, delete, current usage, links.

Source: `app/controllers/api/v1/customers_controller.rb`, `app/services/customers/generate_checkout_url_service.rb`,
`customer_portal/generate_url_service.rb` of lago-api.
"""

from aiohttp import web

from connectors.lago_sandbox.answers import json_answer, page, read_object
from connectors.lago_sandbox.billing import current_usage
from connectors.lago_sandbox.customers import SandboxCustomer
from connectors.lago_sandbox.refusals import invalid_field, not_allowed, not_found
from connectors.lago_sandbox.state import Sandbox

#: A dot ends a customer's id: Lago reads the rest as a format and ignores it (docs/lago-behaviour.md).
CUSTOMER = "/api/v1/customers/{external_id:[^./]+}"
_FORMAT = r"{format:(\.[^./]+)?}"


class CustomerRoutes:
    """Everything below `/api/v1/customers` except subscriptions and invoices."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, with their handlers."""
        return [
            web.post("/api/v1/customers", self.save_customer),
            web.get("/api/v1/customers", self.customers),
            web.get(CUSTOMER + _FORMAT, self.customer),
            web.delete(CUSTOMER + _FORMAT, self.delete_customer),
            web.get(CUSTOMER + "/current_usage", self.usage),
            web.get(CUSTOMER + "/portal_url", self.portal_url),
            web.post(CUSTOMER + "/checkout_url", self.checkout_url),
        ]

    async def save_customer(self, request: web.Request) -> web.Response:
        """Create or update."""
        customer = self._sandbox.save_customer(await read_object(request, "customer"))
        return json_answer({"customer": customer.shown()})

    async def customers(self, request: web.Request) -> web.Response:
        """Return all, newest first, filtered by `external_id`, `search_term` or `currencies[]`."""
        query = request.query
        external_ids, term = query.get("external_id"), query.get("search_term", "").lower()
        currencies = query.getall("currencies[]", [])
        matching = [
            customer
            for customer in reversed(self._sandbox.customers.all.values())
            if (not external_ids or customer.external_id == external_ids)
            and (not currencies or customer.fields.get("currency") in currencies)
            and any(term in text.lower() for text in (customer.external_id, str(customer.fields.get("name") or "")))
        ]
        page_members, meta = page(matching, query)
        return json_answer({"customers": [customer.shown() for customer in page_members], "meta": meta})

    async def customer(self, request: web.Request) -> web.Response:
        """Return one customer."""
        return json_answer({"customer": customer_of(self._sandbox, request).shown()})

    async def usage(self, request: web.Request) -> web.Response:
        """Current usage of one subscription, which must be active and this customer's."""
        customer, now_us = customer_of(self._sandbox, request), self._sandbox.now_us()
        external_id = request.query.get("external_subscription_id", "")
        active = self._sandbox.current_subscriptions(now_us).find(external_id)
        if active is None or active.customer is not customer:
            raise not_allowed("no_active_subscription")
        events = self._sandbox.events
        usage = current_usage(active, events.log.of_subscription(external_id), events.kind, now_us)
        return json_answer({"customer_usage": usage})

    async def delete_customer(self, request: web.Request) -> web.Response:
        """Delete it with its subscriptions; a second time is 404."""
        customer = self._sandbox.delete_customer(request.match_info["external_id"])
        return json_answer({"customer": customer.shown()})

    async def portal_url(self, request: web.Request) -> web.Response:
        """Return a link to pages that the sandbox does not have."""
        customer = customer_of(self._sandbox, request)
        return json_answer({"customer": {"portal_url": f"{request.url.origin()}/customer-portal/{customer.lago_id}"}})

    async def checkout_url(self, request: web.Request) -> web.Response:
        """Return a payment link, for a customer with a payment provider."""
        customer = customer_of(self._sandbox, request)
        if not customer.payment_provider:
            raise invalid_field("base", "no_linked_payment_provider")
        body = {
            "lago_customer_id": customer.lago_id,
            "external_customer_id": customer.external_id,
            "payment_provider": customer.payment_provider,
            "payment_provider_code": customer.payment.get("payment_provider_code"),
            "checkout_url": f"{request.url.origin()}/checkout/{customer.lago_id}",
        }
        return json_answer({"customer": body})


def customer_of(sandbox: Sandbox, request: web.Request) -> SandboxCustomer:
    """Return the customer that the path names. Raises: SandboxRefusal: 404."""
    customer = sandbox.customers.all.get(request.match_info["external_id"])
    if customer is None:
        raise not_found("customer")
    return customer
