"""A service's calls reach the raw topic through the management API, and limits set there reach the service."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from confluent_kafka import Consumer, TopicPartition

from connectors.config.settings import Settings
from meterbridge_sdk import check_org_has_active_subscription, get_org_plan_limits, org_billing_service
from meterbridge_sdk.aiohttp import org_billing_middleware
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.server import BEARER, MASTER_KEY, Server, running_server, settings_for
from tests.support.usage_api import serving

ME = {"id": "user_1", "org_id": "org_1"}


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox() as running:
        await running.plan("starter", 1900)
        await running.subscribe("sub_1", "org_1", "starter")
        yield running


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str, lago: Lago) -> Settings:
    return settings_for(kafka, topic_prefix, lago_api_url=lago.url)


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with running_server(settings) as running:
        yield running


def raw(settings: Settings) -> list[dict[str, Any]]:
    """Every record in the raw topic."""
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": "reads", "enable.auto.commit": False}
    )
    found: list[dict[str, Any]] = []
    try:
        for partition in range(settings.kafka_partitions):
            tp = TopicPartition(f"{settings.topic_prefix}litellm.usage.raw", partition, 0)
            _, end = consumer.get_watermark_offsets(tp, timeout=10 * PATIENCE)
            consumer.assign([tp])
            messages = consumer.consume(end, timeout=10) if end else []
            found += [json.loads(message.value()) for message in messages]
    finally:
        consumer.close()
    return found


async def test_an_answered_request_is_durable_in_the_raw_topic_when_the_service_has_ended(
    server: Server, settings: Settings, lago: Lago
) -> None:
    async def chat(request: web.Request) -> web.Response:
        request["user"] = ME
        return web.Response(headers={"X-Tokens-Used": "150"})

    app = web.Application(middlewares=[org_billing_middleware()])
    app.router.add_post("/v1/chat", chat)
    meterbridge = str(server.http.base_url)
    async with (
        org_billing_service(meterbridge, MASTER_KEY) as service,
        serving(app) as url,
        http_client(trust_env=False) as http,
    ):
        for number in range(6):
            await http.post(f"{url}/v1/chat", headers={"Idempotency-Key": str(number % 3)})
    assert (service.recorder.counts.dropped, service.recorder.counts.rejected) == (0, 0)
    stored = {one["metered"]["transaction_id"]: one["metered"] for one in raw(settings)}
    assert len(stored) == 3
    for metered in stored.values():
        assert (metered["org_id"], metered["code"]) == ("org_1", "api_call")
        assert (metered["properties"]["tokens"], metered["properties"]["endpoint"]) == ("150", "/v1/chat")


async def test_limits_set_over_the_management_api_apply_in_a_service(server: Server, lago: Lago) -> None:
    of_plan, of_org = {"requests": 10, "tokens": 1000}, {"tokens": 900}
    for path, limits in (
        ("/api/v1/billing/plans/starter/limits", of_plan),
        ("/api/v1/billing/org/organizations/org_1/limits", of_org),
    ):
        answer = await server.http.put(path, json={"limits": limits}, headers=BEARER)
        assert answer.status_code == 200, answer.text
    async with org_billing_service(str(server.http.base_url), MASTER_KEY):
        assert await get_org_plan_limits("org_1") == {"requests": 10, "tokens": 900}
        assert await check_org_has_active_subscription("org_1")
        assert await get_org_plan_limits("org_9") == {}
