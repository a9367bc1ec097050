"""The endpoints around the events: organization, metrics, plans, subscriptions, webhook endpoints.

Source: the controllers of the same names below `app/controllers/api/v1/` of lago-api.
"""

from aiohttp import web

from connectors.lago_sandbox.answers import json_answer, page, read_object
from connectors.lago_sandbox.customer_routes import CUSTOMER, customer_of
from connectors.lago_sandbox.identifiers import ORGANIZATION
from connectors.lago_sandbox.instants import iso
from connectors.lago_sandbox.refusals import not_found
from connectors.lago_sandbox.state import Sandbox
from connectors.lago_sandbox.subscription import STATUSES, SandboxSubscription

VERSION = "v1.51.0"


class ManagementRoutes:
    """What is left of `/api/v1` beside events, customers and invoices, and the two health endpoints."""

    def __init__(self, sandbox: Sandbox, version: str = VERSION) -> None:
        self._sandbox = sandbox
        self._version = version

    def routes(self) -> list[web.RouteDef]:
        """Their routes."""
        return [
            web.get("/health", self.health),
            web.get("/ready", self.ready),
            web.get("/api/v1/organizations", self.organization),
            web.get(CUSTOMER + "/subscriptions", self.customer_subscriptions),
            web.post("/api/v1/subscriptions", self.subscribe),
            web.get("/api/v1/subscriptions", self.subscriptions),
            web.get("/api/v1/subscriptions/{external_id}", self.subscription),
            web.put("/api/v1/subscriptions/{external_id}", self.change),
            web.delete("/api/v1/subscriptions/{external_id}", self.terminate),
            web.post("/api/v1/webhook_endpoints", self.add_endpoint),
            web.get("/api/v1/webhook_endpoints", self.endpoints),
            web.post("/api/v1/billable_metrics", self.add_metric),
            web.get("/api/v1/billable_metrics", self.metrics),
            web.get("/api/v1/billable_metrics/{code}", self.metric),
            web.post("/api/v1/plans", self.add_plan),
            web.get("/api/v1/plans", self.plans),
            web.get("/api/v1/plans/{code}", self.plan),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Alive, and which version."""
        github_url = f"https://github.com/getlago/lago-api/tree/{self._version}"
        return json_answer({"version": self._version, "github_url": github_url, "message": "Success"})

    async def ready(self, _: web.Request) -> web.Response:
        """Takes requests."""
        return json_answer({"status": "ok"})

    async def organization(self, _: web.Request) -> web.Response:
        """The tenant; `events_store` says which rules of repetition hold."""
        organization: dict[str, object] = {
            "lago_id": ORGANIZATION,
            "name": "Sandbox",
            "slug": "sandbox",
            "default_currency": "USD",
            "created_at": iso(0),
            "webhook_url": "",
            "webhook_urls": [],
            "timezone": "UTC",
            "net_payment_term": 0,
            "email_settings": [],
            "billing_configuration": {"invoice_footer": None, "invoice_grace_period": 0, "document_locale": "en"},
            "events_store": self._sandbox.events.kind,
            "taxes": [],
        }
        return json_answer({"organization": organization})

    async def customer_subscriptions(self, request: web.Request) -> web.Response:
        """As `GET /subscriptions`, of one customer."""
        return self._listed(request, customer_of(self._sandbox, request).external_id)

    async def subscribe(self, request: web.Request) -> web.Response:
        """Create, or change the plan."""
        subscription = self._sandbox.subscribe(await read_object(request, "subscription"))
        return self._one(subscription)

    async def subscriptions(self, request: web.Request) -> web.Response:
        """By `external_customer_id`, `external_id`, `plan_code` and `status[]`, by default only active ones."""
        return self._listed(request, request.query.get("external_customer_id"))

    async def subscription(self, request: web.Request) -> web.Response:
        """The newest with this id and `status`, by default `active`."""
        subscriptions = self._sandbox.current_subscriptions(self._sandbox.now_us())
        found = subscriptions.find(request.match_info["external_id"], request.query.get("status", "active"))
        if found is None:
            raise not_found("subscription")
        return self._one(found)

    async def change(self, request: web.Request) -> web.Response:
        """Its name or its end."""
        external_id, status = request.match_info["external_id"], request.query.get("status")
        sent = await read_object(request, "subscription")
        return self._one(self._sandbox.update_subscription(external_id, status, sent))

    async def terminate(self, request: web.Request) -> web.Response:
        """End it; a second time is 404. With `on_termination_invoice` `skip` without an invoice."""
        external_id, query = request.match_info["external_id"], request.query
        return self._one(self._sandbox.terminate(external_id, query.get("status"), query.get("on_termination_invoice")))

    async def add_metric(self, request: web.Request) -> web.Response:
        """Create only."""
        metric = self._sandbox.add_metric(await read_object(request, "billable_metric"))
        return json_answer({"billable_metric": metric.shown})

    async def metrics(self, request: web.Request) -> web.Response:
        """All, newest first."""
        shown, meta = page([metric.shown for metric in reversed(self._sandbox.metrics.all.values())], request.query)
        return json_answer({"billable_metrics": shown, "meta": meta})

    async def metric(self, request: web.Request) -> web.Response:
        """By code."""
        metric = self._sandbox.metrics.all.get(request.match_info["code"])
        if metric is None:
            raise not_found("billable_metric")
        return json_answer({"billable_metric": metric.shown})

    async def add_plan(self, request: web.Request) -> web.Response:
        """Create only."""
        plan = self._sandbox.add_plan(await read_object(request, "plan"))
        return json_answer({"plan": plan.shown})

    async def plans(self, request: web.Request) -> web.Response:
        """All, newest first."""
        shown, meta = page([plan.shown for plan in reversed(self._sandbox.plans.all.values())], request.query)
        return json_answer({"plans": shown, "meta": meta})

    async def plan(self, request: web.Request) -> web.Response:
        """By code."""
        plan = self._sandbox.plans.all.get(request.match_info["code"])
        if plan is None:
            raise not_found("plan")
        return json_answer({"plan": plan.shown})

    async def add_endpoint(self, request: web.Request) -> web.Response:
        """Create only."""
        endpoint = self._sandbox.add_endpoint(await read_object(request, "webhook_endpoint"))
        return json_answer({"webhook_endpoint": endpoint})

    async def endpoints(self, request: web.Request) -> web.Response:
        """All, by address."""
        shown, meta = page(self._sandbox.endpoints.listed(), request.query)
        return json_answer({"webhook_endpoints": shown, "meta": meta})

    def _one(self, subscription: SandboxSubscription) -> web.Response:
        following = self._sandbox.subscriptions.following(subscription)
        shown = subscription.shown(following, self._sandbox.now_us())
        return json_answer({"subscription": shown | {"plan": subscription.plan.shown}})

    def _listed(self, request: web.Request, customer_id: str | None) -> web.Response:
        query, now_us = request.query, self._sandbox.now_us()
        subscriptions = self._sandbox.current_subscriptions(now_us)
        statuses = set(query.getall("status[]", ["active"])) & set(STATUSES)
        found = [
            s
            for s in subscriptions.everyone()
            if s.status in statuses
            and customer_id in (None, s.customer.external_id)
            and query.get("external_id", s.external_id) == s.external_id
            and query.get("plan_code", s.plan.code) == s.plan.code
        ]
        listed, meta = page(found, query)
        shown = [s.shown(subscriptions.following(s), now_us) for s in listed]
        return json_answer({"subscriptions": shown, "meta": meta})
