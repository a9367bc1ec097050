"""The endpoints around the events: organization, metrics, plans, subscriptions, webhook endpoints.

Source: the controllers of the same names below `app/controllers/api/v1/` of lago-api.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from connectors.lago_sandbox.answers import json_answer, page, read_object
from connectors.lago_sandbox.customer_routes import CUSTOMER, customer_of
from connectors.lago_sandbox.identifiers import ORGANIZATION
from connectors.lago_sandbox.instants import iso
from connectors.lago_sandbox.refusals import not_found
from connectors.lago_sandbox.state import Sandbox
from connectors.lago_sandbox.subscription import STATUSES, SandboxSubscription

VERSION = "v1.51.0"

Add = Callable[[dict[str, Any]], dict[str, Any]]
Everything = Callable[[], Sequence[dict[str, Any]]]


class ManagementRoutes:
    """All of `/api/v1` except events, customers and invoices, and the two health endpoints."""

    def __init__(self, sandbox: Sandbox, version: str = VERSION) -> None:
        self._sandbox = sandbox
        self._version = version

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, with their handlers."""
        box = self._sandbox
        return [
            web.get("/health", self.health),
            web.get("/ready", self.ready),
            web.get("/api/v1/organizations", self.organization),
            web.get(CUSTOMER + "/subscriptions", self.customer_subscriptions),
            web.post("/api/v1/subscriptions", self.subscribe),
            web.get("/api/v1/subscriptions", self.subscriptions),
            web.get("/api/v1/subscriptions/{external_id:[^/]+}", self.subscription),
            web.put("/api/v1/subscriptions/{external_id:[^/]+}", self.change),
            web.delete("/api/v1/subscriptions/{external_id:[^/]+}", self.terminate),
            *_collection("webhook_endpoint", box.add_endpoint, lambda: list(box.endpoints.listed()), by_code=False),
            *_collection("billable_metric", lambda sent: box.add_metric(sent).shown, lambda: _newest(box.metrics.all)),
            *_collection("plan", lambda sent: box.add_plan(sent).shown, lambda: _newest(box.plans.all)),
        ]

    async def health(self, _: web.Request) -> web.Response:
        """Health and version."""
        github_url = f"https://github.com/getlago/lago-api/tree/{self._version}"
        return json_answer({"version": self._version, "github_url": github_url, "message": "Success"})

    async def ready(self, _: web.Request) -> web.Response:
        """Readiness."""
        return json_answer({"status": "ok"})

    async def organization(self, _: web.Request) -> web.Response:
        """Return the tenant; `events_store` decides which rules of repetition apply."""
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
        """Answer as `GET /subscriptions` for one customer."""
        return self._listed(request, customer_of(self._sandbox, request).external_id)

    async def subscribe(self, request: web.Request) -> web.Response:
        """Create, or change the plan."""
        subscription = self._sandbox.subscribe(await read_object(request, "subscription"))
        return self._one(subscription)

    async def subscriptions(self, request: web.Request) -> web.Response:
        """List subscriptions, filtered by `external_customer_id`, `external_id`, `plan_code` and `status[]`; by default
        only active ones.
        """
        return self._listed(request, request.query.get("external_customer_id"))

    async def subscription(self, request: web.Request) -> web.Response:
        """Return the newest with this id and `status`, by default `active`."""
        subscriptions = self._sandbox.current_subscriptions(self._sandbox.now_us())
        match = subscriptions.find(request.match_info["external_id"], request.query.get("status", "active"))
        if match is None:
            raise not_found("subscription")
        return self._one(match)

    async def change(self, request: web.Request) -> web.Response:
        """Change its name or its end."""
        external_id, status = request.match_info["external_id"], request.query.get("status")
        sent = await read_object(request, "subscription")
        return self._one(self._sandbox.update_subscription(external_id, status, sent))

    async def terminate(self, request: web.Request) -> web.Response:
        """End it; a second time is 404. `on_termination_invoice` `skip` = without an invoice."""
        external_id, query = request.match_info["external_id"], request.query
        return self._one(self._sandbox.terminate(external_id, query.get("status"), query.get("on_termination_invoice")))

    def _one(self, subscription: SandboxSubscription) -> web.Response:
        following = self._sandbox.subscriptions.following(subscription)
        body = subscription.shown(following, self._sandbox.now_us())
        return json_answer({"subscription": body | {"plan": subscription.plan.shown}})

    def _listed(self, request: web.Request, customer_id: str | None) -> web.Response:
        query, now_us = request.query, self._sandbox.now_us()
        subscriptions = self._sandbox.current_subscriptions(now_us)
        statuses = set(query.getall("status[]", ["active"])) & set(STATUSES)
        matching = [
            s
            for s in subscriptions.everyone()
            if s.status in statuses
            and customer_id in (None, s.customer.external_id)
            and query.get("external_id", s.external_id) == s.external_id
            and query.get("plan_code", s.plan.code) == s.plan.code
        ]
        listed, meta = page(matching, query)
        bodies = [s.shown(subscriptions.following(s), now_us) for s in listed]
        return json_answer({"subscriptions": bodies, "meta": meta})


def _collection(root: str, add: Add, everything: Everything, *, by_code: bool = True) -> list[web.RouteDef]:
    """Return the routes of things that are created and listed, and, with `by_code`, read by their code.

    Args:
        root: the key of one of them in JSON; the path has its plural.
    """
    path = f"/api/v1/{root}s"

    async def create(request: web.Request) -> web.Response:
        return json_answer({root: add(await read_object(request, root))})

    async def index(request: web.Request) -> web.Response:
        shown, meta = page(everything(), request.query)
        return json_answer({f"{root}s": shown, "meta": meta})

    async def show(request: web.Request) -> web.Response:
        found = next((one for one in everything() if one["code"] == request.match_info["code"]), None)
        if found is None:
            raise not_found(root)
        return json_answer({root: found})

    routes = [web.post(path, create), web.get(path, index)]
    return [*routes, web.get(path + "/{code:[^/]+}", show)] if by_code else routes


def _newest(everything: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all as Lago shows them, newest first."""
    return [everything[code].shown for code in reversed(list(everything))]
