"""The sandbox's webhooks have Lago's form: envelope, signature of the raw bytes, one key for three attempts."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from connectors.lago.webhook_signatures import UNIQUE_KEY, check_signature
from tests.support.eventually import soon
from tests.support.sandbox import DAY, Clock, Lago, lago_sandbox

SECRET = "shared"


@dataclass
class Receiver:
    """Accepts webhooks and answers as configured: a status for each, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.headers.append(dict(request.headers))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    @property
    def received(self) -> list[tuple[str, Any]]:
        """(type, object) of each."""
        payloads = [json.loads(body) for body in self.bodies]
        return [(one["webhook_type"], one[one["object_type"]]) for one in payloads]

    @property
    def types(self) -> list[str]:
        return sorted(kind for kind, _ in self.received)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/webhooks/lago", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/lago"
    yield receiver
    await runner.cleanup()


@asynccontextmanager
async def sandbox_with(receiver: Receiver, clock: Clock | None = None, **endpoint: Any) -> AsyncIterator[Lago]:
    async with lago_sandbox(webhook_secret=SECRET, webhook_waits_s=(0.05, 0.1), clock=clock or Clock()) as lago:
        await lago.plan()
        await lago.save("/customers", "customer", external_id="before", name="Before")
        wanted = {"webhook_url": receiver.url, "signature_algo": "hmac", **endpoint}
        answer = await lago.save("/webhook_endpoints", "webhook_endpoint", **wanted)
        assert answer.status_code == 200
        yield lago


async def test_a_subscription_sends_webhooks_from_its_start_to_its_end(receiver: Receiver) -> None:
    async with sandbox_with(receiver) as lago:
        await lago.plan("dear", 9900)
        await lago.save("/customers", "customer", external_id="org_1", name="A & <B>")
        await lago.subscribe()
        await soon(lambda: receiver.types == ["customer.created", "subscription.started"])
        await lago.http.put("/api/v1/subscriptions/sub_1", json={"subscription": {"name": "another"}})
        await soon(lambda: "subscription.updated" in receiver.types)
        await lago.subscribe(plan="dear")  # an upgrade: one ends, one begins, under one external id
        await soon(lambda: receiver.types.count("subscription.started") == 2)
        await lago.http.delete("/api/v1/subscriptions/sub_1")
        await soon(lambda: receiver.types.count("subscription.terminated") == 2)
    for headers, body in zip(receiver.headers, receiver.bodies, strict=True):
        assert headers["X-Lago-Signature-Algorithm"] == "hmac"
        check_signature(headers, body, [SECRET])
    assert len({headers[UNIQUE_KEY] for headers in receiver.headers}) == len(receiver.headers)
    started = [found for kind, found in receiver.received if kind == "subscription.started"]
    assert {one["external_customer_id"] for one in started} == {"org_1"}
    assert all(b"&" not in body and b"<" not in body for body in receiver.bodies)


async def test_a_webhook_is_sent_three_times_under_one_key(receiver: Receiver) -> None:
    receiver.answers, clock = [500, 302, 503, 204], Clock()
    async with sandbox_with(receiver, clock) as lago:
        await lago.save("/customers", "customer", external_id="org_1")
        await soon(lambda: len(receiver.bodies) == 3)
        await asyncio.sleep(0.3)
        assert len(set(receiver.bodies)) == 1 and len(receiver.bodies) == 3
        assert len({headers[UNIQUE_KEY] for headers in receiver.headers}) == 1
        clock.now += 1
        await lago.save("/customers", "customer", external_id="org_1", name="new")
        await soon(lambda: receiver.types.count("customer.updated") == 1)
        await asyncio.sleep(0.3)
    assert len(receiver.bodies) == 4


async def test_only_the_requested_types_are_sent_and_none_by_jwt(receiver: Receiver) -> None:
    async with sandbox_with(receiver, event_types=["subscription.started"]) as lago:
        other = {"webhook_url": f"{receiver.url}?other", "signature_algo": "jwt"}
        await lago.save("/webhook_endpoints", "webhook_endpoint", **other)
        await lago.save("/customers", "customer", external_id="org_1")
        await lago.subscribe()
        await soon(lambda: receiver.types == ["subscription.started"])
        await asyncio.sleep(0.2)
    assert receiver.types == ["subscription.started"]


async def test_events_caused_by_time_are_sent_too(receiver: Receiver) -> None:
    """A subscription that starts or ends on a given day, and its invoice."""
    clock = Clock()
    async with sandbox_with(receiver, clock) as lago:
        await lago.subscribe("sub_2", "org_2", subscription_at="2025-03-08T00:00:00Z", ending_at="2025-03-20T00:00:00Z")
        await asyncio.sleep(0.1)
        assert "subscription.started" not in receiver.types
        clock.now += 2 * DAY
        await soon(lambda: "subscription.started" in receiver.types)
        clock.now += 20 * DAY
        await soon(lambda: {"subscription.terminated", "invoice.created"} <= set(receiver.types))


async def test_any_webhook_can_be_triggered(receiver: Receiver) -> None:
    async with sandbox_with(receiver) as lago:
        order = {"webhook_type": "events.errors", "object_type": "events_errors", "object": {"invalid_code": ["a"]}}
        assert (await lago.http.post("/__webhooks", json=order)).status_code == 200
        assert (await lago.http.post("/__webhooks", json={"webhook_type": "x"})).status_code == 422
        await soon(lambda: receiver.received == [("events.errors", {"invalid_code": ["a"]})])
