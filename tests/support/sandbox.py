"""A Lago sandbox on a loopback port, reached over HTTP like the real one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from aiohttp import web
from lago_python_client.client import Client

from connectors.lago_sandbox import create_sandbox
from tests.support.asked_lago import Asked
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client

KEY = "a-key"
NOW = 1_741_219_251.0  # 2025-03-06T00:00:51Z, a Thursday
DAY = 86_400.0


@dataclass
class Clock:
    """Seconds since 1970, set by the test."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Lago:
    """A running sandbox.

    Fields:
        http: carries the key.
        sdk: Lago's own synchronous client; call it in a thread.
        asked: its requests.
    """

    url: str
    http: httpx.AsyncClient
    sdk: Client
    asked: Asked = field(default_factory=Asked)

    async def post(self, *events: dict[str, Any]) -> httpx.Response:
        """Send `POST /events/batch`."""
        return await self.http.post("/api/v1/events/batch", json={"events": list(events)})

    async def post_one(self, event: dict[str, Any]) -> httpx.Response:
        """Send `POST /events`."""
        return await self.http.post("/api/v1/events", json={"event": event})

    async def get(self, path: str, **query: Any) -> httpx.Response:
        """Return a path below `/api/v1`."""
        return await self.http.get(f"/api/v1{path}", params=query)

    async def save(self, path: str, root: str, **fields: Any) -> httpx.Response:
        """POST one object below `/api/v1` under its root key."""
        return await self.http.post(f"/api/v1{path}", json={root: fields})

    async def stats(self) -> dict[str, Any]:
        """Send `GET /__stats`."""
        answer: dict[str, Any] = (await self.http.get("/__stats")).json()
        return answer

    async def fault(self, **rule: Any) -> None:
        """Arm one rule."""
        armed = await self.http.post("/__faults", json=[rule])
        assert armed.status_code == 200, armed.text

    async def metric(self, code: str = "llm_cost", **fields: Any) -> str:
        """Return a sum metric over `unit`; its id."""
        spec = {"name": code, "code": code, "aggregation_type": "sum_agg", "field_name": "unit"} | fields
        answer = await self.save("/billable_metrics", "billable_metric", **spec)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["billable_metric"]["lago_id"])

    async def plan(self, code: str = "llm", amount_cents: int = 0, **fields: Any) -> None:
        """Create a monthly plan in dollars, without charges."""
        spec = {
            "name": code,
            "code": code,
            "interval": "monthly",
            "amount_cents": amount_cents,
            "amount_currency": "USD",
            "pay_in_advance": False,
        } | fields
        answer = await self.save("/plans", "plan", **spec)
        assert answer.status_code == 200, answer.text

    async def usage_plan(self, code: str = "llm", amount_cents: int = 0, metric: str = "ai_usage") -> None:
        """Create a monthly plan in dollars that charges the metric; the metric is made if it is missing."""
        found = await self.get(f"/billable_metrics/{metric}")
        lago_id = found.json()["billable_metric"]["lago_id"] if found.status_code == 200 else await self.metric(metric)
        await self.plan(code, amount_cents, charges=[{"billable_metric_id": lago_id, "charge_model": "dynamic"}])

    async def subscribe(
        self, external_id: str = "sub_1", customer: str = "org_1", plan: str = "llm", **fields: Any
    ) -> dict[str, Any]:
        """Return a subscription; Lago's JSON of it."""
        answer = await self.save(
            "/subscriptions",
            "subscription",
            **{"external_customer_id": customer, "external_id": external_id, "plan_code": plan, **fields},
        )
        assert answer.status_code == 200, answer.text
        subscription: dict[str, Any] = answer.json()["subscription"]
        return subscription

    async def sell(self, **charge: Any) -> None:
        """Metric `llm_cost`, plan `llm` with a dynamic charge over it, subscription `sub_1` of `org_1`."""
        metric = await self.metric()
        await self.plan(charges=[{"billable_metric_id": metric, "charge_model": "dynamic"} | charge])
        await self.subscribe()

    async def usage(self, customer: str = "org_1", external_id: str = "sub_1") -> dict[str, Any]:
        """Return the running period's usage."""
        answer = await self.get(f"/customers/{customer}/current_usage", external_subscription_id=external_id)
        assert answer.status_code == 200, answer.text
        usage: dict[str, Any] = answer.json()["customer_usage"]
        return usage


def event(transaction_id: str = "t1", **fields: Any) -> dict[str, Any]:
    """Return a valid event of `sub_1` at the clock's start."""
    return {
        "transaction_id": transaction_id,
        "external_subscription_id": "sub_1",
        "code": "llm_cost",
        "timestamp": f"{NOW:.3f}",
        "precise_total_amount_cents": "1.25",
        "properties": {"unit": "820", "requests": "2", "total_tokens": "820"},
    } | fields


@asynccontextmanager
async def lago_sandbox(**options: Any) -> AsyncIterator[Lago]:
    """Yield a sandbox with these options of `create_sandbox`, gone afterwards."""
    app, asked = create_sandbox(**options), Asked()
    app.middlewares.insert(0, asked.noting)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=20)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        async with http_client(base_url=url, headers=headers, timeout=10 * PATIENCE, trust_env=False) as http:
            yield Lago(url, http, Client(api_key=KEY, api_url=url), asked)
    finally:
        await runner.cleanup()


def codes(answer: httpx.Response) -> Any:
    """Return `error_details` of a 422."""
    assert answer.status_code == 422, answer.text
    body = answer.json()
    assert (body["status"], body["error"], body["code"]) == (422, "Unprocessable Entity", "validation_errors")
    return body["error_details"]
