"""Lago's sandbox in this process: the real application and the real client, with no socket between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import yarl
from aiohttp import StreamReader, web
from aiohttp.http import HttpVersion11, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from connectors.lago.client import LagoClient
from connectors.lago.sandbox.app import create_sandbox
from tests.model.history import CHARGED, SEARCH_CENTS, SEARCHES, USAGE

URL, KEY = "http://lago", "key"


@dataclass
class Clock:
    """The one clock of deployment and Lago, whole seconds since 1970."""

    now: int

    def seconds(self) -> float:
        """As the sandbox asks for it."""
        return float(self.now)

    def us(self) -> int:
        """As the product asks for it."""
        return self.now * 1_000_000


class _Connection:
    """What a request wants of its connection: nothing here."""

    transport = None
    peername = sockname = ssl_context = None
    _reading_paused = False

    def resume_reading(self, *, resume_parser: bool = False) -> None:
        """The body is whole."""


class InProcess(httpx.AsyncBaseTransport):
    """Hands a request to the application's own handler."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        loop, connection = asyncio.get_running_loop(), _Connection()
        payload = StreamReader(connection, limit=2**16, loop=loop)  # type: ignore[arg-type]
        payload.feed_data(await request.aread())
        payload.feed_eof()
        headers = CIMultiDictProxy(CIMultiDict(request.headers.items()))
        path = request.url.raw_path.decode()
        message = RawRequestMessage(
            request.method, path, HttpVersion11, headers, (), False, None, False, False, yarl.URL(path, encoded=True)
        )
        asked = web.Request(message, payload, connection, None, None, loop)  # type: ignore[arg-type]
        answer = await self._app._handle(asked)
        assert isinstance(answer, web.Response)
        content = answer.body if isinstance(answer.body, bytes) else b""
        return httpx.Response(answer.status, headers=dict(answer.headers), content=content)


@dataclass
class Lago:
    """A sandbox with the metrics, the plans and the orgs; `client` is what the product asks it with."""

    http: httpx.AsyncClient
    client: LagoClient

    async def metric(self, spec: dict[str, Any]) -> str:
        """A billable metric's id."""
        return str((await self.save("/billable_metrics", billable_metric=spec))["lago_id"])

    async def save(self, path: str, **root: Any) -> Any:
        """POST one object under its root key; what Lago answers under it."""
        answer = await self.http.post(f"/api/v1{path}", json=root)
        assert answer.status_code == 200, answer.text
        return answer.json()[next(iter(root))]


@asynccontextmanager
async def lago(clock: Clock, orgs: tuple[str, ...]) -> AsyncIterator[Lago]:
    """One of them."""
    app = create_sandbox(api_key=KEY, clock=clock.seconds)
    app.freeze()
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=URL, transport=InProcess(app), headers=headers, timeout=None) as http:
        found = Lago(http, LagoClient(http, URL, KEY, now=clock.seconds))
        usage = {"name": "AI", "code": USAGE, "aggregation_type": "sum_agg", "field_name": "unit"}
        searches = {"name": "Searches", "code": SEARCHES, "aggregation_type": "count_agg"}
        charges = {
            USAGE: {"billable_metric_id": await found.metric(usage), "charge_model": "dynamic"},
            SEARCHES: {
                "billable_metric_id": await found.metric(searches),
                "charge_model": "standard",
                "properties": {"amount": f"0.{SEARCH_CENTS:02}"},
            },
        }
        plan = {"interval": "monthly", "amount_cents": 0, "amount_currency": "USD", "pay_in_advance": False}
        for code, charged in CHARGED.items():
            own = {"name": code, "code": code, "charges": [charges[metric] for metric in charged]}
            await found.save("/plans", plan={**plan, **own})
        for org in orgs:
            await found.save("/customers", customer={"external_id": org, "name": org, "currency": "USD"})
        yield found
