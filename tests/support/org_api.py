"""The endpoints of orgs, customers and plans on a loopback port, with a Lago sandbox; their tables in memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
from aiohttp import web

from connectors.api.billing_endpoints import billing_endpoints
from connectors.billing.identity_mapping import Announce, identity_of
from connectors.billing.mappings import MappingResult
from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_records import StoredIds
from connectors.http.endpoint import Endpoint, Principal, other_org, routes_of
from connectors.http.middleware import RequestTracker, create_app
from connectors.http.problem import Problem
from connectors.lago.client import LagoClient, lago_http
from schemas.customer_id import normalise_customer_id
from schemas.customers import CustomerRecord, OrgRecord
from schemas.errors import Unavailable
from schemas.moments import SECOND_US
from streams.core.mapping.resolve import resolve
from streams.core.mapping.set_mapping import set_mapping, shown
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.sandbox import KEY, Clock, Lago, lago_sandbox

ORGS = "/api/v1/billing/org/organizations"


class InMemoryRecords:
    """`OrgRecords` of one process; a test may keep its content for another process."""

    def __init__(self) -> None:
        self.all: dict[str, OrgRecord] = {}
        self.away = False

    async def get(self, org_id: str) -> OrgRecord | None:
        return self.seen(org_id)

    def seen(self, org_id: str) -> OrgRecord | None:
        return self.all.get(org_id)

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        if self.away:
            raise Unavailable("kafka_unavailable", "the org's record was not stored in time")
        known = self.all.get(org_id) or OrgRecord(org_id)
        self.all[org_id] = created = make(known)
        return msgspec.structs.replace(created, org_id=org_id)


class InMemoryIdentities:
    """`Identities` of one process, by the core's own rule."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self.all: dict[str, CustomerRecord] = {}
        self.away = False
        self._now_us = now_us

    async def of(self, external_id: str) -> MappingResult | None:
        record = self.all.get(normalise_customer_id(external_id) or "")
        version = shown(record.versions, self._now_us()) if record is not None else None
        if record is None or version is None:
            return None
        return MappingResult(record, version, resolve(record, self._now_us(), "", {}))

    async def write(self, external_id: str, plan: str, announce: Announce) -> MappingResult | None:
        if self.away:
            raise Unavailable("kafka_unavailable", "the customer's record was not stored in time")
        wanted = identity_of(external_id, plan)
        if wanted is not None and wanted.litellm_customer_id not in self.all:
            created = set_mapping(None, wanted, self._now_us(), SECOND_US)
            await announce(None, created)
            self.all[wanted.litellm_customer_id] = created
        return await self.of(external_id)


@dataclass
class OpenAccess:
    """Accepts everybody as `principal`, and records the changes to be made."""

    principal: Principal = field(default_factory=lambda: Principal("test", frozenset({"*"})))
    changes: list[tuple[Any, Any]] = field(default_factory=list)
    away: bool = False

    async def admit(self, request: web.Request, endpoint: Endpoint) -> Principal:
        if not self.principal.may(endpoint.scope):
            raise Problem(403, "missing_scope", f"this needs the scope {endpoint.scope}")
        if endpoint.org and not self.principal.may_see(request.match_info[endpoint.org]):
            raise other_org()
        return self.principal

    async def changing(self, principal: Principal, request: web.Request, before: Any, after: Any) -> None:
        if self.away:
            raise Unavailable("kafka_unavailable", "the audit log cannot be written")
        self.changes.append((before, after))

    def refused(self, request: web.Request, problem: Problem) -> None:
        """Nothing reads it."""


@dataclass
class OrgApi:
    """A running API; `http` is its client, `lago` the sandbox behind it."""

    http: httpx.AsyncClient
    lago: Lago
    clock: Clock
    records: InMemoryRecords
    usage: InMemoryUsage
    identities: InMemoryIdentities
    access: OpenAccess
    billing: OrgBilling
    endpoints: list[Endpoint]
    #: Seconds that caches go by.
    ticks: list[float]

    async def ask(self, verb: str, path: str, status: int = 200, **options: Any) -> dict[str, Any]:
        """Return the JSON of an answer of this status."""
        answer = await self.http.request(verb, path, **options)
        assert answer.status_code == status, (answer.status_code, answer.text)
        kind = "application/problem+json" if status >= 400 else "application/json"
        assert answer.headers["content-type"].startswith(kind)
        body: dict[str, Any] = answer.json()
        return body

    async def org(
        self, verb: str, rest: str, status: int = 200, *, org: str = "org_1", **options: Any
    ) -> dict[str, Any]:
        """Do the same as `ask` below an org's path; the id is used unchanged in the path."""
        return await self.ask(verb, f"{ORGS}/{org}{rest}", status, **options)

    async def set_up(self, plan: str = "starter", status: int = 201, *, org: str = "org_1") -> dict[str, Any]:
        """Send `POST /setup`."""
        body = {"plan_code": plan, "org_name": "Acme", "email": "a@acme.io", "user_id": "user_1"}
        return await self.org("POST", "/setup", status, org=org, json=body)

    def later(self, seconds: float) -> None:
        """Advance the time, for Lago and for caches."""
        self.clock.now += seconds
        self.ticks[0] += seconds


@asynccontextmanager
async def org_api(clock: Clock | None = None, **sandbox: Any) -> AsyncIterator[OrgApi]:
    """Yield a running org API, with plans `founders_friend` (0), `starter` (1900), `professional` (4900) and `ai_basic`
    (usage). Its client of Lago has more patience than a page.
    """
    clock, ticks = clock or Clock(), [0.0]
    async with lago_sandbox(clock=clock, **sandbox) as lago, lago_http(60 * PATIENCE, 8) as wire:
        metric = await lago.metric("ai_usage")
        await lago.plan("ai_basic", charges=[{"billable_metric_id": metric, "charge_model": "dynamic"}])
        for code, cents in (("founders_friend", 0), ("starter", 1900), ("professional", 4900)):
            await lago.plan(code, cents)
        records, usage, access = InMemoryRecords(), InMemoryUsage(), OpenAccess()

        def now_us() -> int:
            return round(clock.now * SECOND_US)

        client = LagoClient(wire, lago.url, KEY)
        billing = OrgBilling(client, StoredIds(records), usage, now_us=now_us, clock=lambda: ticks[0])  # type: ignore[arg-type]
        identities = InMemoryIdentities(now_us)
        endpoints = billing_endpoints(billing, records, "ai_usage", identities, now_us=now_us, clock=lambda: ticks[0])
        runner = web.AppRunner(
            create_app(RequestTracker(), routes_of(endpoints, access)), access_log=None, shutdown_timeout=5
        )
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with http_client(base_url=url, timeout=60 * PATIENCE, trust_env=False) as http:
                yield OrgApi(http, lago, clock, records, usage, identities, access, billing, endpoints, ticks)
        finally:
            await runner.cleanup()
