"""A complete deployment of processes with a sandbox: usage is posted to it, customers are mapped, and Lago is read."""

import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import msgspec

from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_billing import OrgBilling
from connectors.billing.subscription_id_store import InMemoryIds
from connectors.lago.client import LagoClient
from connectors.processes.account_tables import now_us
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.running_roles import LAGO_KEY, LINE, MASTER_KEY, TOKEN, running_roles
from tests.support.stage import Stage

PLANS = ("one", "other")  # equally dear: Lago changes between them at once


@dataclass
class Deployment:
    """A complete deployment with a sandbox, and two ways to send usage."""

    api: httpx.AsyncClient
    session: aiohttp.ClientSession
    billing: OrgBilling
    url: str
    lago: str
    costs: dict[tuple[str, float], Decimal] = field(default_factory=dict)
    sent: int = 0

    async def map(self, customer: str, org: str, **fields: Any) -> dict[str, Any]:
        body = {"litellm_customer_id": customer, "lago_customer_id": org, "lago_organization_id": "t", **fields}
        answer = await self.api.post("/customers/mapping", json=body)
        assert answer.status_code in (200, 201), answer.text
        result: dict[str, Any] = answer.json()
        return result

    async def post(self, calls: list[tuple[str, float, Decimal]]) -> None:
        """Calls of (customer, end in seconds since 1970, cost in USD)."""
        bodies = []
        for customer, end, cost in calls:
            self.sent += 1
            self.costs[customer, round(end, 3)] = self.costs.get((customer, round(end, 3)), Decimal(0)) + cost
            call = {"litellm_call_id": f"c{self.sent}", "user": customer, "model": "gpt-4o", "spend": str(cost)}
            bodies.append(call | {"startTime": end - 0.5, "endTime": round(end, 3), "total_tokens": 5})
        async with self.session.post(f"{self.url}/webhook/litellm/usage", json=bodies) as answer:
            assert answer.status == 202, await answer.text()

    async def stats(self) -> dict[str, Any]:
        async with self.session.get(f"{self.lago}/__stats") as answer:
            result: dict[str, Any] = await answer.json()
            return result

    async def events(self) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.lago}/__events") as answer:
            return [msgspec.json.decode(line) for line in (await answer.read()).splitlines()]

    def owed(self, customer: str, beginnings: list[float]) -> list[Decimal]:
        """Cents of a customer's calls by side: before the first of `beginnings`, from it on to the second, and so on."""
        sides = [Decimal(0)] * (len(beginnings) + 1)
        for (name, end), cost in self.costs.items():
            if name == customer:
                sides[bisect_right(beginnings, end)] += cost * 100
        return sides


@asynccontextmanager
async def deployment(bootstrap: str, prefix: str, folder: Path, window_s: int) -> AsyncIterator[Deployment]:
    """Every role as its own process."""
    Stage(bootstrap, prefix, partitions=12)
    commands = {**LINE, "ingress": ("serve",)}
    settings = {"WINDOW_SECONDS": str(window_s), "GRACE_SECONDS": "1"}
    async with running_roles(bootstrap, prefix, folder, commands, **settings) as roles:
        bearer, hook = {"Authorization": f"Bearer {MASTER_KEY}"}, {"Authorization": f"Bearer {TOKEN}"}
        async with (
            http_client(base_url=roles.url, headers=bearer, timeout=30 * PATIENCE, trust_env=False) as api,
            http_client(timeout=30 * PATIENCE, trust_env=False) as http,
            aiohttp.ClientSession(headers=hook) as session,
        ):
            client = LagoClient(http, roles.lago, LAGO_KEY)
            billing = OrgBilling(client, InMemoryIds(), InMemoryUsage(), now_us=now_us, template="sub_{org_id}")
            yield Deployment(api, session, billing, roles.url, roles.lago)


async def furnish(lago: str, orgs: Sequence[str]) -> None:
    """Give the sandbox at this address a metric, two plans, and a subscription of every org."""
    headers, api = {"Authorization": f"Bearer {LAGO_KEY}"}, f"{lago}/api/v1"
    metric = {"name": "usage", "code": "ai_usage", "aggregation_type": "sum_agg", "field_name": "unit"}
    async with http_client(headers=headers, trust_env=False) as http:
        created = (await http.post(f"{api}/billable_metrics", json={"billable_metric": metric})).json()
        charge = {"billable_metric_id": created["billable_metric"]["lago_id"], "charge_model": "dynamic"}
        for code in PLANS:
            plan = {"name": code, "code": code, "interval": "monthly", "amount_cents": 0, "amount_currency": "USD"}
            answer = await http.post(
                f"{api}/plans", json={"plan": {**plan, "pay_in_advance": False, "charges": [charge]}}
            )
            assert answer.status_code == 200, answer.text
        since = datetime.fromtimestamp(time.time() - 86_400).astimezone().isoformat()
        for org in orgs:
            wanted = {"external_customer_id": org, "external_id": f"sub_{org}", "plan_code": PLANS[0]}
            answer = await http.post(
                f"{api}/subscriptions", json={"subscription": {**wanted, "subscription_at": since}}
            )
            assert answer.status_code == 200, answer.text
