"""Delivery and the real HTTP client with the Lago sandbox: afterwards Lago has each sent event once."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from random import Random
from typing import Any

import httpx
import msgspec
import pytest
from aiohttp import web

from connectors.lago.client import LagoClient, LagoUnavailable, lago_http
from connectors.lago_sandbox.app import create_sandbox
from schemas.moments import lago_timestamp, parse_us
from schemas.records import LagoEvent
from streams.core.delivery.backoff import RetryPolicy
from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.circuit_breaker import Breaker, State
from streams.delivery.engine import Delivery
from tests.support.eventually import within

AT_US = parse_us("2026-03-01T12:00:00.123Z")


def event(name: str, cents: str = "0.000145", **changes: Any) -> LagoEvent:
    properties = {"unit": "7", "model": 'gpt-4o "mini" ü'}
    one = LagoEvent(name, "sub_1", "llm_cost", lago_timestamp(AT_US), cents, properties)
    for field, value in changes.items():
        setattr(one, field, value)
    return one


def item(one: LagoEvent, *, resent: bool = False) -> Item:
    return Item(one.transaction_id, msgspec.json.encode(one), resent)


class Lago:
    """A sandbox on its own port, a client of it, and the sandbox's own records."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self.http = http
        self.url = url
        self.client = LagoClient(http, url, "key")
        self.breaker = Breaker(RetryPolicy(random=lambda: 0.5))

    def delivery(self, *, batch_size: int = 100, resend_is_safe: bool = True, api_key: str = "key") -> Delivery:
        policy = RetryPolicy(random=Random(1).random, base_s=0.01, cap_s=0.05, give_way_s=0.05, health_s=0.01)
        self.breaker = Breaker(policy, time.monotonic())
        return Delivery(
            LagoClient(self.http, self.url, api_key),
            concurrency=asyncio.Semaphore(4),
            breaker=self.breaker,
            policy=policy,
            clock=time.monotonic,
            sleep=asyncio.sleep,
            on_request=lambda *_request: None,
            batch_size=batch_size,
            resend_is_safe=lambda: resend_is_safe,
        )

    async def deliver(self, items: list[Item], **options: Any) -> list[tuple[str, str]]:
        async with within(120):  # no endless wait, but time enough for a busy machine
            outcomes: list[EventOutcome] = await self.delivery(**options).deliver(items)
        return [(outcome.kind, outcome.reason) for outcome in outcomes]

    async def arm(self, *rules: dict[str, Any]) -> None:
        answer = await self.http.post(f"{self.url}/__faults", json={"rules": rules, "seed": 7})
        answer.raise_for_status()

    async def fired(self) -> list[int]:
        """How often each rule fired."""
        return [rule["fired"] for rule in (await self.http.get(f"{self.url}/__faults")).json()["rules"]]

    async def stored(self) -> dict[str, list[Decimal]]:
        """Amounts in cents of every stored copy, by transaction id."""
        found: dict[str, list[Decimal]] = {}
        for line in (await self.http.get(f"{self.url}/__events")).text.splitlines():
            one = msgspec.json.decode(line)
            found.setdefault(one["transaction_id"], []).append(Decimal(one["precise_total_amount_cents"]))
        return found

    async def post(self, path: str, body: dict[str, Any]) -> None:
        answer = await self.http.post(f"{self.url}/api/v1{path}", json=body, headers={"Authorization": "Bearer key"})
        answer.raise_for_status()


Start = Callable[..., Awaitable[Lago]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(store=..., ...)`: a sandbox with these options."""
    runners: list[web.AppRunner] = []
    async with lago_http(timeout_s=0.4, connections=4) as http:

        async def start(**options: Any) -> Lago:
            runner = web.AppRunner(create_sandbox(api_key="key", **options), shutdown_timeout=0.1)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return Lago(http, f"http://127.0.0.1:{runner.addresses[0][1]}")

        yield start
    for runner in runners:
        await runner.cleanup()


def once(names: list[str], cents: str = "0.000145") -> dict[str, list[Decimal]]:
    return {name: [Decimal(cents)] for name in names}


NAMES = [f"prod-{n}" for n in range(250)]


async def test_a_delivered_event_is_stored_once_with_its_exact_amount(start: Start) -> None:
    lago = await start()
    assert await lago.deliver([item(event(name)) for name in NAMES]) == [("delivered", "accepted")] * 250
    assert await lago.stored() == once(NAMES)


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "status", "status": 500, "count": 5},
        {"kind": "status", "status": 503, "headers": {"Retry-After": "0.02"}, "count": 5},
        {"kind": "status", "status": 429, "headers": {"X-RateLimit-Reset": "0.02"}, "count": 5},
        {"kind": "status", "status": 401, "count": 5},
        {"kind": "drop", "count": 4},
        {"kind": "drop_after_accept", "count": 4},
        {"kind": "timeout_after_accept", "seconds": 2, "count": 2},
        {"kind": "slow", "seconds": 1, "count": 2},
        {"kind": "garbage_200", "count": 4},
        {"kind": "garbage_200", "stored": True, "count": 4},
        {"kind": "truncate", "count": 4},
        {"kind": "trickle", "seconds": 60, "count": 2},
        {"kind": "status", "status": 301, "headers": {"Location": "/elsewhere"}, "count": 4},
        {"kind": "status", "status": 429, "headers": {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, "count": 3},
    ],
    ids=lambda rule: "-".join(str(value) for value in rule.values()),
)
async def test_no_fault_of_the_connection_causes_a_loss_or_a_repeat(start: Start, rule: dict[str, Any]) -> None:
    lago = await start()
    await lago.arm(rule)
    outcomes = await lago.deliver([item(event(name)) for name in NAMES])
    assert {kind for kind, _ in outcomes} == {"delivered"}
    assert await lago.stored() == once(NAMES)
    assert await lago.fired() == [rule["count"]]
    assert lago.breaker.state is State.CLOSED


async def test_random_faults_cause_no_loss_and_no_repeat(start: Start) -> None:
    lago = await start()
    await lago.arm(
        {"kind": "status", "status": 502, "probability": 0.1, "count": 40},
        {"kind": "drop", "probability": 0.1, "count": 20},
        {"kind": "drop_after_accept", "probability": 0.2, "count": 40},
        {"kind": "garbage_200", "stored": True, "probability": 0.2, "count": 40},
        {"kind": "status", "status": 429, "probability": 0.1, "count": 1},
        {"kind": "drop", "method": "GET", "path": "/health", "probability": 0.3, "count": 10},
    )
    names = [f"prod-{n}" for n in range(400)]
    outcomes = await lago.deliver([item(event(name)) for name in names], batch_size=10)
    assert {kind for kind, _ in outcomes} <= {"delivered", "retry"}
    waiting = {name for name, (kind, _) in zip(names, outcomes, strict=True) if kind == "retry"}
    stored = await lago.stored()
    assert stored.keys() >= set(names) - waiting
    assert stored == once(list(stored))
    assert all(await lago.fired())


async def test_each_of_lagos_own_refusals_has_its_outcome(start: Start) -> None:
    lago = await start()
    await lago.deliver([item(event("known")), item(event("taken"))])
    outcomes = await lago.deliver(
        [
            item(event("good")),
            item(event("late", timestamp="yesterday")),
            item(event("nameless", code="")),
            item(event("known")),
            item(event("taken", cents="9")),
            item(event("known")),
            item(event("resent"), resent=True),
        ]
    )
    assert outcomes == [
        ("delivered", "accepted"),
        ("dead", "invalid_timestamp"),
        ("dead", "missing_code"),
        ("delivered", "confirmed"),
        ("dead", "id_conflict"),
        ("delivered", "confirmed"),
        ("delivered", "accepted"),
    ]
    assert await lago.stored() == once(["known", "taken", "good", "resent"])


async def test_an_event_that_lago_can_never_store_is_isolated_and_the_others_are_billed(start: Start) -> None:
    lago = await start()
    await lago.arm({"kind": "poison", "transaction_id": "prod-41"})
    outcomes = await lago.deliver([item(event(name)) for name in NAMES], batch_size=50)
    assert outcomes.pop(41) in (("retry", "http_500"), ("retry", "timeout"))  # a busy machine may exceed 0.4 s
    assert outcomes == [("delivered", "accepted")] * 249
    assert await lago.stored() == once([name for name in NAMES if name != "prod-41"])


async def test_without_deduplication_an_event_with_an_unknown_outcome_is_looked_up_and_not_repeated(
    start: Start,
) -> None:
    lago = await start(store="clickhouse", dedup=False)
    assert (await lago.client.organization()).events_store == "clickhouse"
    await lago.arm({"kind": "drop_after_accept", "count": 2}, {"kind": "drop", "count": 2})
    outcomes = await lago.deliver([item(event(name)) for name in NAMES[:60]], batch_size=20, resend_is_safe=False)
    assert {kind for kind, _ in outcomes} == {"delivered"}
    assert await lago.stored() == once(NAMES[:60])


async def test_a_wrong_key_holds_the_events_and_opens_the_breaker(start: Start) -> None:
    lago = await start()
    running = asyncio.ensure_future(lago.delivery(api_key="wrong").deliver([item(event("a"))]))
    async with within(10):
        while lago.breaker.reason != "http_401":
            await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])
    assert await lago.stored() == {}


async def test_the_client_reads_stored_events(start: Start) -> None:
    lago = await start()
    name = "1Az()[]?#._/|-/../ü"
    await lago.deliver([item(event(name))])
    assert await lago.client.get_event(name) == event(name)
    assert await lago.client.get_event("unknown") is None
    assert (await lago.client.organization()).events_store == "postgres"
    assert await lago.client.healthy()
    await lago.post("/customers", {"customer": {"external_id": "org_1", "name": "One", "currency": "USD"}})
    customer = await lago.client.customer("org_1")
    assert customer is not None
    assert (customer.name, customer.currency) == ("One", "USD")
    assert await lago.client.customer("org_1.json") is None
    assert await lago.client.customer("nobody") is None


async def test_the_client_reads_every_active_subscription(start: Start) -> None:
    lago = await start()
    plan = {"name": "P", "code": "p", "interval": "monthly", "amount_cents": 0, "amount_currency": "USD"}
    await lago.post("/plans", {"plan": {**plan, "pay_in_advance": False, "charges": []}})
    names = [f"sub {n}&" for n in range(103)]
    for name in names:
        subscription = {"external_customer_id": "org/1", "plan_code": "p", "external_id": name}
        await lago.post("/subscriptions", {"subscription": {**subscription, "subscription_at": "2026-01-01T00:00:00Z"}})
    found = await lago.client.subscriptions("org/1")
    assert sorted(one.external_id for one in found) == sorted(names)
    assert {(parse_us(one.started_at or ""), one.terminated_at, one.plan_code) for one in found} == {
        (parse_us("2026-01-01T00:00:00Z"), None, "p")
    }
    assert await lago.client.subscriptions("nobody") == []


async def test_an_unreachable_lago_is_unavailable_and_nothing_was_sent(start: Start) -> None:
    lago = await start()
    nobody = LagoClient(lago.http, "http://127.0.0.1:1", "key")
    with pytest.raises(LagoUnavailable) as caught:
        await nobody.post_batch(b'{"events":[]}')
    assert caught.value.reason == "connect"
    assert not await nobody.healthy()
