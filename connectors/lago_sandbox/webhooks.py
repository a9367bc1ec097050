"""Webhooks. Every endpoint that signs by HMAC gets the changes since the last check, in at most three attempts.

Source: `app/services/webhooks/base_service.rb`, `app/services/webhooks/send_http_service.rb`, `app/models/webhook.rb`,
`config/webhook_event_types.yml` of lago-api. Changes of customers, subscriptions and new invoices are sent; `POST
/__webhooks` sends any other type. Lago can also sign by JWT. The sandbox does not, and sends nothing to such an
endpoint.
"""

import asyncio
import hmac
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from connectors.config.http_client import HttpClient
from connectors.lago_sandbox.answers import json_answer
from connectors.lago_sandbox.customers import SandboxCustomer
from connectors.lago_sandbox.identifiers import ORGANIZATION
from connectors.lago_sandbox.invoices import SandboxInvoice
from connectors.lago_sandbox.state import Sandbox
from connectors.lago_sandbox.subscription import SandboxSubscription
from schemas.decoding import UNDECODABLE

#: Waits before the second and the third attempt, seconds; Lago adds a jitter of 15 %.
WAITS_S = (3.0, 18.0)
_TIMEOUT_S = 30.0
_TAKEN = frozenset({200, 201, 202, 204})
_STATES = {
    "active": "subscription.started",
    "terminated": "subscription.terminated",
    "canceled": "subscription.terminated",
}


class Notice(NamedTuple):
    """A webhook: its type, the name of its object, and the object."""

    webhook_type: str
    object_type: str
    shown: dict[str, Any]


class WebhookOrder(msgspec.Struct):
    """`POST /__webhooks`: a webhook of any type."""

    webhook_type: str
    object_type: str
    object: dict[str, Any]


_Delivery = Callable[[Any], Iterator[Notice]]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SandboxWebhooks:
    """Sends webhooks while the sandbox runs.

    Args:
        secret: the organization's HMAC key.
        waits_s: see `WAITS_S`.

    Attributes:
        sent: number of attempts by the response's status; 0 = no response.
    """

    def __init__(self, sandbox: Sandbox, secret: str, waits_s: Sequence[float] = WAITS_S) -> None:
        self.sent: dict[int, int] = {}
        self._sandbox = sandbox
        self._secret = secret.encode()
        self._waits_s = waits_s
        self._known: dict[object, Any] | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._http: httpx.AsyncClient | None = None

    def routes(self) -> list[web.RouteDef]:
        """Return `POST /__webhooks`, which Lago does not have: it sends a webhook of any type."""
        return [web.post("/__webhooks", self.order)]

    async def order(self, request: web.Request) -> web.Response:
        """Send the webhook; a 422 names the errors in the order."""
        try:
            order = msgspec.json.decode(await request.read(), type=WebhookOrder)
        except UNDECODABLE as error:
            return json_answer({"status": 422, "error": str(error)}, 422)
        self.send(Notice(order.webhook_type, order.object_type, order.object))
        return json_answer({"status": "ok"})

    def looking(self) -> Middleware:
        """Calls `look` after each request that may have changed something."""

        @web.middleware
        async def looking(request: web.Request, handler: _Handler) -> web.StreamResponse:
            response = await handler(request)
            if request.method != "GET" and not request.path.startswith(("/api/v1/events", "/__")):
                self.look()
            return response

        return looking

    def look(self) -> None:
        """Send the changes since the last call; changes before the first endpoint are not sent."""
        if not self._sandbox.endpoints.all:
            self._known = None
            return
        pending = list(self._notices())
        known, self._known = self._known, {key: state for key, state, _ in pending}
        if known is None:
            return
        for key, state, notices in pending:
            if known.get(key) != state:
                for notice in notices(known.get(key)):
                    self.send(notice)

    def send(self, notice: Notice) -> None:
        """Send it to every endpoint that has its type."""
        envelope = {"webhook_type": notice.webhook_type, "object_type": notice.object_type}
        body = _escaped(
            msgspec.json.encode({**envelope, "organization_id": ORGANIZATION, notice.object_type: notice.shown})
        )
        for endpoint in self._sandbox.endpoints.listed():
            types = endpoint["event_types"]
            if endpoint["signature_algo"] == "hmac" and (types is None or notice.webhook_type in types):
                task = asyncio.ensure_future(self._send(endpoint["webhook_url"], body))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    async def watch(self, every_s: float = 1.0) -> None:
        """Call `look` until cancelled, for changes that only time brings."""
        while True:
            await asyncio.sleep(every_s)
            self.look()

    async def close(self) -> None:
        """Cancel all unsent webhooks."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()

    async def _send(self, url: str, body: bytes) -> None:
        headers = {
            "Content-Type": "application/json",
            "X-Lago-Signature": b64encode(hmac.digest(self._secret, body, sha256)).decode(),
            "X-Lago-Signature-Algorithm": "hmac",
            "X-Lago-Unique-Key": str(uuid4()),
        }
        if self._http is None:
            self._http = HttpClient(_TIMEOUT_S, trust_env=False)
        for wait_s in (*self._waits_s, None):
            try:
                status = (await self._http.post(url, content=body, headers=headers)).status_code
            except httpx.HTTPError:
                status = 0
            self.sent[status] = self.sent.get(status, 0) + 1
            if status in _TAKEN or wait_s is None:
                return
            await asyncio.sleep(wait_s)

    def _notices(self) -> Iterator[tuple[str, object, _Delivery]]:
        """Yield for each object its key, its state, and a function that makes the webhooks of a changed state."""
        sandbox = self._sandbox
        for customer in sandbox.customers.all.values():
            yield customer.lago_id, customer.updated_us, _of_customer(customer)
        for one in sandbox.current_subscriptions(sandbox.now_us()).everyone():
            state = (one.status, one.plan.code, one.name, one.ending_us)
            yield one.lago_id, state, _of_subscription(sandbox, one)
        for invoice in sandbox.current_invoices():
            yield invoice.lago_id, invoice.number, _of_invoice(invoice)


def _of_customer(customer: SandboxCustomer) -> _Delivery:
    def notices(before: int | None) -> Iterator[Notice]:
        yield Notice("customer.created" if before is None else "customer.updated", "customer", customer.shown())

    return notices


def _of_subscription(sandbox: Sandbox, subscription: SandboxSubscription) -> _Delivery:
    def notices(before: tuple[Any, ...] | None) -> Iterator[Notice]:
        following = sandbox.subscriptions.following(subscription)
        parts = {"customer": subscription.customer.shown(), "plan": subscription.plan.shown}
        body = subscription.shown(following, sandbox.now_us()) | parts
        if before is not None and before[0] == subscription.status:
            yield Notice("subscription.updated", "subscription", body)
        elif (kind := _STATES.get(subscription.status)) is not None:
            yield Notice(kind, "subscription", body)

    return notices


def _of_invoice(invoice: SandboxInvoice) -> _Delivery:
    def notices(_before: object) -> Iterator[Notice]:
        yield Notice("invoice.created", "invoice", invoice.shown(""))

    return notices


def _escaped(body: bytes) -> bytes:
    """Return JSON as Rails writes it; a receiver that encodes it again gets other bytes."""
    return body.replace(b"<", rb"\u003c").replace(b">", rb"\u003e").replace(b"&", rb"\u0026")
