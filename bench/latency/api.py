"""Response times of the management API: in addition to Lago's, and for data in our own tables while usage arrives."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

from bench.latency.timing import at_pace, row
from tests.support.running_roles import LAGO_KEY, MASTER_KEY, TOKEN, RunningRoles, running_roles
from tests.support.stage import Stage

RATE_OF_LAGO, RATE_OF_OURS, INGESTED = 20, 200, 200
ORGS = 20
_WARM_UP_S = 0.5
_COMMANDS = {"lago": ("lago-sandbox", "--delay", "0.005"), "server": ("serve",)}
_BILLING = "/api/v1/billing/org/organizations"

#: Requests to Lago, one round after the other; those of a round at once.
Rounds = list[list[str]]
Get = Callable[[str], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Served:
    """A server with orgs and mapped customers, and the orgs' subscriptions."""

    roles: RunningRoles
    session: aiohttp.ClientSession
    subscriptions: list[str]

    def ours(self) -> Get:
        """Return what reads a path of the API, and returns the seconds that it took."""
        return _timed(self.session, self.roles.url, MASTER_KEY)

    def lagos(self) -> Get:
        """Return the same for a path below `/api/v1` of Lago."""
        return _timed(self.session, f"{self.roles.lago}/api/v1", LAGO_KEY)


async def measured(bootstrap: str, prefix: str, folder: Path, seconds: float) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of both subjects by name."""
    async with _served(bootstrap, prefix, folder) as served:
        return {"api_over_lago": await _over_lago(served, seconds), "own_tables": [await _own(served, seconds)]}


async def _over_lago(served: Served, seconds: float) -> list[dict[str, Any]]:
    """After each request its requests to Lago are sent directly; the difference is ours. It is negative for a dashboard whose
    parts are still cached.
    """
    rows, get, direct = [], served.ours(), served.lagos()
    for name, ours, theirs in _requests(served.subscriptions):

        async def extra(
            number: int, ours: Callable[[int], str] = ours, theirs: Callable[[int], Rounds] = theirs
        ) -> float:
            took = await get(ours(number % ORGS))
            for together in theirs(number % ORGS):
                took -= max(await asyncio.gather(*map(direct, together)))
            return took

        took = await _warm(extra, RATE_OF_LAGO, seconds)
        rows.append(row(took, 95, request=name, per_second=RATE_OF_LAGO))
    return rows


def _requests(subscriptions: list[str]) -> list[tuple[str, Callable[[int], str], Callable[[int], Rounds]]]:
    """Return the requests by name: the path of an org, and what Lago is asked for it."""

    def usage(number: int) -> str:
        return f"/customers/org_{number}/current_usage?external_subscription_id={subscriptions[number]}"

    return [
        ("usage/current", lambda n: f"{_BILLING}/org_{n}/usage/current", lambda n: [[usage(n)]]),
        (
            "invoices",
            lambda n: f"{_BILLING}/org_{n}/invoices?links=false",
            lambda n: [[f"/invoices?external_customer_id=org_{n}&per_page=10"]],
        ),
        (
            "customers",
            lambda n: f"/api/customers/org_{n}",
            lambda n: [[f"/customers/org_{n}", f"/subscriptions?external_customer_id=org_{n}"]],
        ),
        (
            "dashboard",
            lambda n: f"{_BILLING}/org_{n}/dashboard",
            lambda n: [[f"/customers/org_{n}", f"/invoices?external_customer_id=org_{n}"], [usage(n)]],
        ),
    ]


async def _own(served: Served, seconds: float) -> dict[str, Any]:
    """Read mappings and limits in turn while usage arrives."""
    get = served.ours()

    async def own(number: int) -> float:
        org = number % ORGS
        return await get(f"/customers/customer-{org}/mapping" if number % 2 else f"{_BILLING}/org_{org}/limits")

    ingesting = asyncio.ensure_future(_ingest(served))
    try:
        took = await _warm(own, RATE_OF_OURS, seconds)
        if ingesting.done():
            ingesting.result()
    finally:
        ingesting.cancel()
        with suppress(asyncio.CancelledError):
            await ingesting
    return row(took, 99, per_second=RATE_OF_OURS, posts_per_second=INGESTED)


async def _warm(do: Callable[[int], Awaitable[float]], rate: int, seconds: float) -> list[float]:
    """Return the times of requests after some that warm up."""
    await at_pace(do, rate, round(rate * _WARM_UP_S))
    return await at_pace(do, rate, round(rate * seconds))


async def _ingest(served: Served) -> None:
    """Post one call at a time, at a steady rate, until it is cancelled."""
    start, headers = time.monotonic(), {"Authorization": f"Bearer {TOKEN}"}
    for number in count():
        await asyncio.sleep(max(0.0, start + number / INGESTED - time.monotonic()))
        now = time.time()
        call = {"litellm_call_id": f"c{number}", "user": f"customer-{number % ORGS}", "spend": 0.01}
        call |= {"model": "gpt-4o", "total_tokens": 5, "startTime": now - 0.1, "endTime": now}
        url = f"{served.roles.url}/webhook/litellm/usage"
        async with served.session.post(url, json=call, headers=headers) as answer:
            if answer.status != 202:
                raise RuntimeError(f"{answer.status}: {await answer.text()}")


@asynccontextmanager
async def _served(bootstrap: str, prefix: str, folder: Path) -> AsyncIterator[Served]:
    Stage(bootstrap, prefix, partitions=3)
    settings = {"KAFKA_PARTITIONS": "3", "API_RATE_LIMIT": "0"}
    async with (
        running_roles(bootstrap, prefix, folder, _COMMANDS, **settings) as roles,
        aiohttp.ClientSession() as session,
    ):
        yield Served(roles, session, await _set_up(session, roles.url))


async def _set_up(session: aiohttp.ClientSession, api: str) -> list[str]:
    """Make orgs with subscriptions, limits and mapped customers; return the subscriptions' ids."""
    headers = {"Authorization": f"Bearer {MASTER_KEY}"}

    async def put(verb: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with session.request(verb, api + path, json=body, headers=headers) as answer:
            if answer.status not in (200, 201):
                raise RuntimeError(f"{path}: {answer.status}: {await answer.text()}")
            made: dict[str, Any] = await answer.json()
            return made

    async def org(number: int) -> str:
        path = f"{_BILLING}/org_{number}"
        created = await put("POST", f"{path}/setup", {"plan_code": "starter", "org_name": "Acme"})
        await put("PUT", f"{path}/limits", {"limits": {"tokens": 1000}})
        mapping = {"litellm_customer_id": f"customer-{number}", "lago_customer_id": f"org_{number}"}
        await put("POST", "/customers/mapping", {**mapping, "lago_organization_id": "tenant"})
        return str(created["subscription"]["external_id"])

    plan = {"name": "Starter", "code": "starter", "interval": "monthly", "amount_cents": 1900, "amount_currency": "USD"}
    await put("POST", "/api/billing/plans", plan)
    return await asyncio.gather(*map(org, range(ORGS)))


def _timed(session: aiohttp.ClientSession, root: str, token: str) -> Get:
    headers = {"Authorization": f"Bearer {token}"}

    async def get(path: str) -> float:
        began = time.perf_counter()
        async with session.get(root + path, headers=headers) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status}: {await answer.text()}")
            await answer.read()
        return time.perf_counter() - began

    return get
