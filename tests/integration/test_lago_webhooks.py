"""Lago's webhooks from end to end: the org's record has Lago's state before Lago gets 200."""

import asyncio
import hmac
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from connectors.config.settings import Settings
from schemas.customers import OrgRecord
from schemas.records import DeliveryAttempt, Receipt
from tests.support.calls import raw, slp
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import event, put, quick_delivery, statuses
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage

SECRET = "shared-by-both"


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(webhook_secret=SECRET, webhook_waits_s=(0.2, 0.5), clock=time.time) as running:
        await running.usage_plan()
        yield running


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str, lago: Lago) -> Settings:
    return settings_for(kafka, topic_prefix, lago_api_url=lago.url, lago_webhook_secret=f"an-old-one,{SECRET}")


@pytest.fixture
def stage(settings: Settings) -> Stage:
    return Stage(settings.kafka_bootstrap_servers, settings.topic_prefix, settings.kafka_partitions)


@asynccontextmanager
async def webhook_server(settings: Settings, lago: Lago) -> AsyncIterator[Server]:
    """A server to which Lago sends its webhooks, and which learns nothing by polling."""
    async with running_server(settings) as server:
        url = str(server.http.base_url.join("/webhooks/lago"))
        wanted = {"webhook_url": url, "signature_algo": "hmac"}
        assert (await lago.save("/webhook_endpoints", "webhook_endpoint", **wanted)).status_code == 200
        yield server


def orgs(stage: Stage) -> dict[str, OrgRecord]:
    return {
        one.key().decode(): msgspec.json.decode(one.value(), type=OrgRecord) for one in stage.read(stage.topics.orgs)
    }


def attempts(stage: Stage) -> list[DeliveryAttempt]:
    return [msgspec.json.decode(one.value(), type=DeliveryAttempt) for one in stage.read(stage.topics.deliveries)]


def came(stage: Stage) -> list[DeliveryAttempt]:
    return [one for one in attempts(stage) if one.direction == "in"]


def signed(payload: dict[str, Any], key: str = "k1", secret: str = SECRET) -> dict[str, Any]:
    body = json.dumps(payload).encode()
    signature = b64encode(hmac.digest(secret.encode(), body, sha256)).decode()
    return {"content": body, "headers": {"X-Lago-Signature": signature, "X-Lago-Unique-Key": key}}


def started(org: str = "org_1") -> dict[str, Any]:
    return {
        "webhook_type": "subscription.started",
        "object_type": "subscription",
        "subscription": {"external_customer_id": org},
    }


async def webhooks_counted(server: Server, outcome: str) -> float:
    text = (await server.http.get("/metrics/prometheus")).text
    lines = [line for line in text.splitlines() if line.startswith("meterbridge_lago_webhooks_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'outcome="{outcome}"' in line)


async def test_a_subscription_created_in_lago_releases_the_usage_held_for_it(
    settings: Settings, stage: Stage, lago: Lago
) -> None:
    """Created on Lago's own pages: its webhook reaches the org's record, and the held usage is billed."""
    now = time.time_ns() // 1000
    async with webhook_server(settings, lago) as server, http_client(trust_env=False) as http:
        assert (await server.map("acme", "org_1")).json()["held_reason"] == "no_subscription"
        stage.put([raw(0, slp(n, at_us=now), customer="acme", received_us=now) for n in range(20)])
        parts = stage.parts(delivery=quick_delivery(lago, http))
        async with stage.running("meter", parts), stage.running("sink", parts):
            await soon(lambda: sum(stage.sensors.calls.values()) == 20)
            assert orgs(stage) == {}
            await lago.subscribe("sub_1", "org_1", subscription_at="2026-01-01T00:00:00Z")
            await soon(lambda: "completed" in statuses(stage).values(), limit_s=20)
    assert [period.external_id for period in orgs(stage)["org_1"].periods] == ["sub_1"]
    assert (await lago.stats())["totals"]["calls"] == 20
    assert {(one.event_type, one.status) for one in came(stage)} == {
        ("customer.created", 200),
        ("subscription.started", 200),
    }


async def test_a_plan_change_and_an_end_are_in_the_orgs_record(settings: Settings, stage: Stage, lago: Lago) -> None:
    await lago.usage_plan("dear", 9900)
    async with webhook_server(settings, lago) as server:
        await server.map("acme", "org_1")
        await lago.subscribe("sub_1", "org_1")
        await soon(lambda: "org_1" in orgs(stage))
        await lago.subscribe("sub_1", "org_1", plan="dear")
        await soon(lambda: orgs(stage)["org_1"].plan == "dear")
        await lago.save("/customers", "customer", external_id="org_1", name="Acme", email="a@example.com")
        await soon(lambda: orgs(stage)["org_1"].name == "Acme")
        await lago.http.delete("/api/v1/subscriptions/sub_1")
        await soon(lambda: all(period.terminated_at for period in orgs(stage)["org_1"].periods))
        await lago.subscribe("other", "stranger")  # an org without a mapping
        await soon(lambda: len(attempts(stage)) >= 6)
    org = orgs(stage)["org_1"]
    assert (org.email, list(orgs(stage))) == ("a@example.com", ["org_1"])
    first, second = org.periods
    assert (first.plan_code, second.plan_code) == ("llm", "dear")
    assert first.started_at < second.started_at == first.terminated_at


async def test_only_webhooks_signed_by_lago_are_accepted(settings: Settings, stage: Stage, lago: Lago) -> None:
    async with running_server(settings) as server:
        post = server.http.post
        good = signed(started())
        for bad, reason in (
            ({"content": good["content"]}, "unsigned"),
            (good | {"content": good["content"] + b" "}, "bad_signature"),
            (signed(started(), secret="another"), "bad_signature"),
            (good | {"headers": good["headers"] | {"X-Lago-Signature-Algorithm": "jwt"}}, "signed_by_jwt"),
        ):
            answer = await post("/webhooks/lago", **bad)
            assert (answer.status_code, answer.json()["reason"]) == (401, reason)
        answer = await post("/webhooks/lago", **signed([]))  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["reason"]) == (400, "not_json")
        assert attempts(stage) == []
        answer = await post("/webhooks/lago", **signed(started(), secret="an-old-one"))
        assert (answer.status_code, answer.json()) == (200, {"status": "ignored"})
    assert [one.event_type for one in attempts(stage)] == ["subscription.started"]


async def test_an_unsigned_webhook_is_refused_before_its_body_arrives(
    settings: Settings, stage: Stage, lago: Lago
) -> None:
    """Any client may connect here, so nothing is stored for unauthenticated ones."""
    async with running_server(settings) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", next(iter(server.ports.values())))
        writer.write(b"POST /webhooks/lago HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\n\r\n")
        assert b" 401 " in await asyncio.wait_for(reader.readline(), 5 * PATIENCE)
        writer.close()


async def test_without_a_secret_every_webhook_is_refused(kafka: Kafka, topic_prefix: str, lago: Lago) -> None:
    async with running_server(settings_for(kafka, topic_prefix, lago_api_url=lago.url)) as server:
        answer = await server.http.post("/webhooks/lago", **signed(started()))
        assert (answer.status_code, answer.json()["reason"]) == (501, "no_webhook_secret")


async def test_a_repeat_is_answered_and_changes_nothing_also_after_a_restart(
    settings: Settings, stage: Stage, lago: Lago
) -> None:
    """Lago repeats a webhook without an answer under the same key."""
    await lago.subscribe("sub_1", "org_1")
    for expected in (["applied", "repeated", "repeated"], ["applied", "repeated", "repeated"]):
        async with running_server(settings) as server:
            await server.map("acme", "org_1")
            posted = [await server.http.post("/webhooks/lago", **signed(started())) for _ in range(3)]
            assert [one.json()["status"] for one in posted] == expected
            assert await webhooks_counted(server, "applied") == 1 and await webhooks_counted(server, "repeated") == 2
    assert len(stage.read(stage.topics.orgs)) == 1
    assert [(one.attempt, one.unique_key, one.status) for one in attempts(stage)] == [
        (number, "k1", 200) for number in (1, 2, 3) * 2
    ]


async def test_a_webhook_that_cannot_be_processed_now_is_repeated_and_then_processed(
    settings: Settings, stage: Stage, lago: Lago
) -> None:
    async with webhook_server(settings, lago) as server:
        await server.map("acme", "org_1")
        await lago.fault(kind="status", status=503, path="/api/v1/subscriptions", method="GET", count=1)
        await lago.subscribe("sub_1", "org_1")
        await soon(lambda: "org_1" in orgs(stage))
        assert await webhooks_counted(server, "http_503") == 1
        [refused] = [one for one in attempts(stage) if one.status != 200]
        await soon(lambda: refused.unique_key in {one.unique_key for one in attempts(stage) if one.status == 200})
    assert (refused.status, refused.error) == (503, "http_503")


async def test_an_event_that_lago_will_not_bill_has_failed_with_its_reason(
    settings: Settings, stage: Stage, lago: Lago
) -> None:
    """Lago accepted it, and finds within the hour that no metric counts it: only its webhook says so."""
    await lago.subscribe("sub", "org", subscription_at="2026-01-01T00:00:00Z")
    async with webhook_server(settings, lago) as server, http_client(trust_env=False) as http:
        put(stage, [event(n) for n in range(3)])
        async with stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))):
            await soon(lambda: len(statuses(stage)) == 3)
        totals = {"total_events": 3, "completed_events": 3, "failed_events": 0}
        await seen(server, totals)
        errors = {"invalid_code": ["e-1", "somebody-elses"], "missing_group_key": None}
        for number in range(2):
            order = {"webhook_type": "events.errors", "object_type": "events_errors", "object": errors}
            await lago.http.post("/__webhooks", json=order)
            await soon(lambda number=number: len(came(stage)) == number + 1)  # type: ignore[misc]
            await seen(server, {"total_events": 3, "completed_events": 2, "failed_events": 1})
        assert (await webhooks_counted(server, "applied"), await webhooks_counted(server, "ignored")) == (1, 1)
        text = (await server.http.get("/metrics/prometheus")).text
        assert 'failed_events_total{error_type="unbillable_invalid_code"} 1.0' in text
    receipts = [msgspec.json.decode(one.value(), type=Receipt) for one in stage.read(stage.topics.receipts)]
    failed = [(one.transaction_id, one.reason) for one in receipts if one.status == "failed"]
    assert failed == [("e-1", "unbillable_invalid_code")]


async def seen(server: Server, totals: dict[str, int]) -> None:
    deadline = time.monotonic() + 20 * PATIENCE
    while True:
        found = (await server.http.get("/metrics", headers=BEARER)).json()
        if totals.items() <= found.items():
            return
        assert time.monotonic() < deadline, found
