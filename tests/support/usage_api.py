"""The management API's usage endpoint, as other services see it: scripted, on a loopback port."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web

from connectors.http.problem import Problem
from meterbridge_sdk import MeterbridgeClient

KEY = "mb_key"
RECORD = "/api/v1/billing/org/organizations/{org_id}/usage/record"
#: Instead of a status: the connection ends, with the usage stored or not; no answer comes in time.
CUT, STORED_AND_CUT, SILENT = "cut", "stored and cut", "silent"


@dataclass
class UsageApi:
    """A running endpoint.

    Fields:
        script: the responses to the next requests, each a status, CUT, STORED_AND_CUT or SILENT; later requests succeed.
        stored: the first usage of each transaction id.
        bodies: the body of every request, in order.
        awake: ends every silence.
    """

    url: str = ""
    script: list[int | str] = field(default_factory=list)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    awake: asyncio.Event = field(default_factory=asyncio.Event)

    async def record(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return Problem(401, "unknown_token").response()
        fate = self.script.pop(0) if self.script else 202
        if fate in (202, STORED_AND_CUT):
            usage = json.loads(body)
            self.stored.setdefault(usage["transaction_id"], {"org": request.match_info["org_id"], **usage})
        if fate == SILENT:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.awake.wait(), 600)
        if isinstance(fate, str):
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if fate == 202:
            answer = {"status": "accepted", "transaction_id": json.loads(body)["transaction_id"]}
            return web.json_response(answer, status=202)
        return Problem(fate, "scripted", "as the test wants", {"Retry-After": "2"}).response()

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Properties of what is stored, in order."""
        return [usage["properties"] for usage in self.stored.values()]


@asynccontextmanager
async def usage_api() -> AsyncIterator[UsageApi]:
    """Yield a running endpoint; it is stopped afterwards."""
    api = UsageApi()
    app = web.Application()
    app.router.add_post(RECORD, api.record)
    async with serving(app) as url:
        api.url = url
        yield api


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Yield the address of an application on a loopback port."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class Sleeps:
    """A sleep that takes no time and is recorded."""

    waits: list[float] = field(default_factory=list)

    async def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0)


def sdk_client(
    api: UsageApi, http: httpx.AsyncClient, key: str = KEY, sleep: Any = None, **options: Any
) -> MeterbridgeClient:
    """Return a client of it that does not sleep."""
    return MeterbridgeClient(http, api.url, key, random_number=lambda: 1.0, sleep=sleep or Sleeps(), **options)
