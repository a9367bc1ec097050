"""Lago's sandbox in this process: the real application and the real client, without a socket between them.

The history says when the last invoice of a subscription is counted, and shown. Events stored later are on no invoice.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import msgspec
import yarl
from aiohttp import StreamReader, web
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from connectors.lago.client import LagoClient
from connectors.lago_sandbox.app import create_sandbox
from connectors.lago_sandbox.event_routes import EventRoutes
from connectors.lago_sandbox.invoices import SandboxInvoice, SandboxInvoices
from connectors.lago_sandbox.invoicing import DueInvoice
from connectors.lago_sandbox.state import Sandbox
from connectors.lago_sandbox.store import EventStore
from connectors.lago_sandbox.subscriptions import SandboxSubscriptions
from tests.model.history import CHARGED, ORGS, SEARCH_CENTS, SEARCHES, TYPO, USAGE

URL, KEY = "http://lago", "key"


@dataclass
class Clock:
    """The common clock of deployment and Lago, whole seconds since 1970."""

    now: int

    def seconds(self) -> float:
        """Return the time in the form that the sandbox requires."""
        return float(self.now)

    def us(self) -> int:
        """Return the time in the form that the product requires."""
        return self.now * 1_000_000


class _Connection:
    """What a request needs of its connection: nothing here."""

    transport = None
    peername = sockname = ssl_context = None
    _reading_paused = False

    def resume_reading(self, *, resume_parser: bool = False) -> None:
        """The body is complete."""


class InProcess(httpx.AsyncBaseTransport):
    """Passes requests to the application's own handler."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        answer = await self.ask(request.method, request.url.raw_path.decode(), body, request.headers)
        return httpx.Response(answer.status, headers=dict(answer.headers), content=_content(answer))

    async def ask(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> web.Response:
        """The application's answer."""
        loop, connection = asyncio.get_running_loop(), _Connection()
        payload = StreamReader(connection, limit=2**16, loop=loop)  # type: ignore[arg-type]
        payload.feed_data(body)
        payload.feed_eof()
        sent, url = CIMultiDictProxy(CIMultiDict(headers)), yarl.URL(path, encoded=True)
        message = RawRequestMessage(method, path, HttpVersion11, sent, (), False, None, False, False, url)
        asked = web.Request(message, payload, connection, None, None, loop)  # type: ignore[arg-type]
        answer = await self._app._handle(asked)
        assert isinstance(answer, web.Response)
        return answer


def _content(answer: web.Response) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b""


class CountedLater(SandboxInvoices):
    """Invoices; those of an end wait while their subscription's id is `pending`."""

    def __init__(self, subscriptions: SandboxSubscriptions) -> None:
        super().__init__(subscriptions)
        self.pending: set[str] = set()
        self._waiting: list[DueInvoice] = []
        self._counting_us = 0

    def up_to(self, now_us: int, events: EventStore) -> list[SandboxInvoice]:
        """Everything that Lago shows by now."""
        self._counting_us = now_us
        waiting, self._waiting = self._waiting, []
        for bill in waiting:
            self._add(bill, events)
        return super().up_to(now_us, events)

    def _add(self, bill: DueInvoice, events: EventStore) -> None:
        closing = bill.subscription.terminated_us == bill.at_us
        if closing and bill.subscription.external_id in self.pending:
            self._waiting.append(bill)
            return
        super()._add(replace(bill, delay_us=self._counting_us - bill.at_us) if closing else bill, events)


def _state_of(app: web.Application) -> Sandbox:
    """The state of a sandbox's application."""
    owners = (getattr(route.handler, "__self__", None) for route in app.router.routes())
    return next(owner._sandbox for owner in owners if isinstance(owner, EventRoutes))


class Lago:
    """A sandbox with the metrics, the plans and the orgs; the product uses `client` to ask it."""

    def __init__(self, clock: Clock) -> None:
        app = create_sandbox(api_key=KEY, clock=clock.seconds)
        app.freeze()
        self._state = _state_of(app)
        self._wire = InProcess(app)
        self.client = LagoClient(httpx.AsyncClient(transport=self._wire, timeout=None), URL, KEY, now=clock.seconds)

    async def begin(self) -> None:
        """Empty, except for the plans and the customers."""
        await self._wire.ask("POST", "/__reset", b"", {})
        self._invoices = self._state.invoices = CountedLater(self._state.subscriptions)
        usage = {"name": "AI", "code": USAGE, "aggregation_type": "sum_agg", "field_name": "unit"}
        searches = {"name": "Searches", "code": SEARCHES, "aggregation_type": "count_agg"}
        price = {"properties": {"amount": f"0.{SEARCH_CENTS:02}"}}
        charges = {
            USAGE: {"billable_metric_id": await self._metric(usage), "charge_model": "dynamic"},
            SEARCHES: {"billable_metric_id": await self._metric(searches), "charge_model": "standard", **price},
        }
        plan = {"interval": "monthly", "amount_cents": 0, "amount_currency": "USD", "pay_in_advance": False}
        for code, charged in CHARGED.items():
            own = {"name": code, "code": code, "charges": [charges[metric] for metric in charged]}
            await self.save("/plans", plan={**plan, **own})
        for org in (*ORGS, TYPO):
            await self.save("/customers", customer={"external_id": org, "name": org, "currency": "USD"})

    async def save(self, path: str, **root: Any) -> Any:
        """POST one object under its root key; returns Lago's answer under it."""
        answer = await self._ask("POST", path, msgspec.json.encode(root))
        assert answer.status == 200, answer.body
        return msgspec.json.decode(_content(answer))[next(iter(root))]

    async def terminate(self, subscription: str) -> None:
        """End a subscription, if it runs; its last invoice is counted when `count` is called."""
        self._invoices.pending.add(subscription)
        await self._ask("DELETE", f"/subscriptions/{subscription}", b"")

    def count(self, subscription: str = "") -> None:
        """Lago counts the last invoices that wait for it, of that subscription or of all."""
        self._state.current_invoices()
        self._invoices.pending -= {subscription} if subscription else {*self._invoices.pending}
        self._state.current_invoices()

    async def _metric(self, spec: dict[str, Any]) -> str:
        return str((await self.save("/billable_metrics", billable_metric=spec))["lago_id"])

    async def _ask(self, method: str, path: str, body: bytes) -> web.Response:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        return await self._wire.ask(method, f"/api/v1{path}", body, headers)
