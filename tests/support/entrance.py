"""A small application behind the authorizer, and its lines in the audit log."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import httpx
import msgspec
from aiohttp import web
from pydantic import BaseModel

from connectors.access.audit_chain import ChainHead, chain_head_of, line_of
from connectors.access.audit_writer import Audit
from connectors.api.authorizer import Authorizer, Credentials
from connectors.http.client_address import ClientAddressPolicy
from connectors.http.endpoint import AuthorizedRequest, Endpoint, Principal, routes_of
from connectors.http.health import json_response
from connectors.http.middleware import RequestTracker, create_app
from schemas.errors import Unavailable
from schemas.records import AuditRecord
from tests.support.http_client import http_client


@dataclass
class Clock:
    """Seconds, advanced by the test."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Topic:
    """The audit topic; `away` refuses."""

    lines: list[AuditRecord] = field(default_factory=list)
    away: bool = False
    values: list[bytes] = field(default_factory=list)

    async def chain_head(self) -> ChainHead:
        """Return the position that the next line follows."""
        begin = max(0, len(self.values) - 20)  # as the product, which reads the log's end
        lines = [line_of(number, value) for number, value in enumerate(self.values[begin:], begin)]
        found = chain_head_of(lines, from_the_beginning=begin == 0)
        assert found is not None
        return found

    async def send_one(self, record: tuple[str, str | None, bytes, int]) -> tuple[int, int]:
        if self.away:
            raise Unavailable("kafka_unavailable")
        self.values.append(record[2])
        self.lines.append(msgspec.json.decode(record[2], type=AuditRecord))
        return 0, len(self.lines)

    @property
    def text(self) -> str:
        """Return the whole content of the topic."""
        return msgspec.json.encode(self.lines).decode()


@dataclass
class Known:
    """Credentials that are given."""

    whose: Mapping[str, Principal]

    async def principal(self, token: str, endpoint: Endpoint) -> Principal | None:
        return self.whose.get(token)


class Body(BaseModel):
    name: str = ""


async def answer(asked: AuthorizedRequest) -> web.Response:
    """Return the accepted caller and its data."""
    name = asked.body.name if asked.body is not None else ""
    if asked.request.method in ("POST", "PUT"):
        await asked.changing({"name": "before"}, {"name": name, "token": "mb_0123_" + "s" * 40})
    return json_response({"actor": asked.principal.actor, "parts": dict(asked.request.match_info), "name": name})


class OwnOrg(BaseModel):
    """The org of a request."""

    org: str


async def own_orgs(asked: AuthorizedRequest) -> web.Response:
    """Return the response for an org that the query names."""
    return json_response({"org": asked.for_org(asked.query.org)})


ENDPOINTS = (
    Endpoint("GET", "/open", "", "For everybody.", answer),
    Endpoint("GET", "/things", "things:read", "Of all orgs.", answer),
    Endpoint("GET", "/calls", "things:read", "For each call.", answer, per_call=True),
    Endpoint("POST", "/things", "things:write", "Change one.", answer, body=Body),
    Endpoint("GET", "/orgs/{org_id}", "orgs:read", "One org.", answer, org="org_id"),
    Endpoint("GET", "/own", "orgs:read", "Of one's own orgs.", own_orgs, query=OwnOrg, sees_to_orgs=True),
    Endpoint("GET", "/texts/{text}", "things:read", "Any text.", answer, any_text=("text",)),
    Endpoint("GET", "/api/customers/{customer_id}", "customers:read", "One.", answer, org="customer_id"),
    Endpoint("GET", "/api/customers", "customers:read", "All.", answer),
    Endpoint("POST", "/api/billing/plans", "plans:write", "One.", answer, body=Body),
    Endpoint("GET", "/api/customersX", "customers:read", "No customers.", answer),
)


@dataclass
class GuardedApp:
    """A running application."""

    http: httpx.AsyncClient
    port: int
    topic: Topic
    clock: Clock
    audit: Audit

    async def get(self, path: str, token: str = "", **headers: str) -> httpx.Response:
        return await self.http.get(path, headers={**_bearer(token), **headers})

    async def post(self, path: str, token: str = "", **more: Any) -> httpx.Response:
        return await self.http.post(path, headers=_bearer(token), **({"json": {}} | more))

    async def written(self) -> list[AuditRecord]:
        """Return every line, once those that wait are written."""
        await self.audit.write_waiting()
        return self.topic.lines


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


@asynccontextmanager
async def running_house(
    kinds: Sequence[Credentials],
    per_second: float = 0,
    endpoints: Sequence[Endpoint] = ENDPOINTS,
    calls_per_second: float = 0,
) -> AsyncIterator[GuardedApp]:
    """Yield an application on a free port; loopback is believed in `X-Forwarded-For`."""
    topic, clock = Topic(), Clock()
    audit = Audit(topic, "billing.audit", clock, lambda: 1_700_000_000_000_000, topic.chain_head)
    origins = ClientAddressPolicy((), (ip_network("127.0.0.0/8"),))
    authorizer = Authorizer(kinds, audit, origins, per_second, clock, calls_per_second)
    app = create_app(RequestTracker(), routes_of(endpoints, authorizer), watching=[authorizer.watching])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = int(runner.addresses[0][1])
    try:
        async with http_client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            yield GuardedApp(http, port, topic, clock, audit)
    finally:
        await runner.cleanup()
