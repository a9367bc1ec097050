"""Calls that other senders post in the integration's own form are billed once, to the cent."""

import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.ingress import running_ingress
from tests.support.kafka import Kafka
from tests.support.posting import quick_delivery
from tests.support.sandbox import lago_sandbox
from tests.support.stage import Stage

CALL = """{"event_type": "llm.completion", "timestamp": "%s", "customer_id": "customer-123", "model": "gpt-4o",
 "provider": "openai", "tokens_input": 150, "tokens_output": 80, "total_tokens": 230, "cost_usd": 0.0045,
 "request_id": "req-%d", "api_key_hash": "abc123"}"""


@pytest.mark.parametrize("path", ["/webhooks/litellm", "/webhooks/litellm/batch"])
async def test_calls_posted_three_times_are_billed_once(kafka: Kafka, topic_prefix: str, path: str) -> None:
    stage = Stage(kafka.bootstrap, topic_prefix)
    stage.map("customer-123", "org_1", "sub_1")
    at = datetime.fromtimestamp(time.time() - 1, UTC).isoformat()
    body = "[" + ",".join(CALL % (at, number) for number in range(4)) + "]"
    async with (
        lago_sandbox() as lago,
        http_client(trust_env=False) as http,
        running_ingress(kafka.bootstrap, topic_prefix) as ingress,
    ):
        await lago.plan()
        await lago.subscribe("sub_1", "org_1", subscription_at="2026-01-01T00:00:00Z")
        parts = stage.parts(delivery=quick_delivery(lago, http))
        for _ in range(3):
            assert (await ingress.post(body.encode(), path=path)).status == 202
        async with stage.running("meter", parts), stage.running("sink", parts):
            await soon(lambda: sum(receipt.calls for receipt in stage.sensors.receipts) == 4, limit_s=30)
        found = (await lago.stats())["subscriptions"]["sub_1"]
    assert (found["calls"], found["tokens"], Decimal(found["billed_cents"])) == (4, 920, Decimal("1.8"))
