"""The operator's policies for cache hits and callers' own keys decide what Lago gets: from webhook to event, with real
Kafka.
"""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.config.settings import load_settings
from schemas.policy import MeterPolicy
from streams.core.metering.decisions import BILLED
from tests.support.eventually import soon
from tests.support.ingress import running_ingress
from tests.support.stage import Stage

CACHE_HIT = Path(__file__).parents[1] / "fixtures" / "litellm" / "generic_api__1.109.1__cache-hit.json"


def policy(**variables: str) -> MeterPolicy:
    """The policy of a worker with these variables, but with windows of one second."""
    return load_settings({"WINDOW_SECONDS": "1", "GRACE_SECONDS": "0.2", **variables}).meter_policy()


def call(number: int, **fields: Any) -> dict[str, Any]:
    """A flat call that cost 2 cents."""
    return {
        "id": f"chatcmpl-{number}",
        "status": "success",
        "end_user": "acme",
        "model": "gpt-4o",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "spend": "0.02",
        **fields,
    }


def billed(stage: Stage) -> tuple[int, int, Decimal]:
    """Calls, tokens and cents in all events."""
    events = stage.values(stage.topics.events)
    return (
        sum(int(event["properties"]["requests"]) for event in events),
        sum(int(event["properties"]["total_tokens"]) for event in events),
        sum((Decimal(event["precise_total_amount_cents"]) for event in events), Decimal(0)),
    )


async def decided(stage: Stage, body: bytes, chosen: MeterPolicy, sent: tuple[int, int, Decimal]) -> dict[str, str]:
    """Posts a body and runs the meter until `sent` events would have been sent to Lago: the calls' decisions by request
    id.
    """
    stage.map("acme", "org-a", "sub-a")
    async with running_ingress(stage.settings.kafka_bootstrap_servers, stage.settings.topic_prefix) as ingress:
        answer = await ingress.post(body)
        assert answer.status == 202, await answer.text()
    async with stage.running("meter", stage.parts(chosen)):
        await soon(lambda: billed(stage) == sent)
    enriched = await asyncio.to_thread(stage.values, stage.topics.enriched)
    assert all(("part" in record) == (record["decision"] in BILLED) for record in enriched)
    return {record["request_id"]: record["decision"] for record in enriched}


@pytest.mark.parametrize(
    ("chosen", "decision", "sent"),
    [("bill", "billable", (3, 45, Decimal(6))), ("skip", "byok", (2, 30, Decimal(4)))],
)
async def test_calls_paid_with_the_callers_own_key_are_billed_only_if_the_policy_says_so(
    stage: Stage, chosen: str, decision: str, sent: tuple[int, int, Decimal]
) -> None:
    """With the wrong policy a caller who has already paid the provider is billed twice."""
    body = json.dumps([call(1, byok=True), call(2), call(3, byok=False)]).encode()
    found = await decided(stage, body, policy(BYOK_POLICY=chosen), sent)
    assert found == {"chatcmpl-1": decision, "chatcmpl-2": "billable", "chatcmpl-3": "billable"}


@pytest.mark.parametrize(
    ("chosen", "decision", "sent"),
    [("bill", "billable", (2, 39, Decimal(2))), ("skip", "cache_hit", (1, 15, Decimal(2)))],
)
async def test_answers_from_the_cache_are_billed_only_if_the_policy_says_so(
    stage: Stage, chosen: str, decision: str, sent: tuple[int, int, Decimal]
) -> None:
    """LiteLLM reports a cache hit with cost 0 and all its tokens: with prices for tokens the policy decides about
    money.
    """
    hit = json.loads(CACHE_HIT.read_bytes())
    assert (hit["response_cost"], hit["total_tokens"]) == (0, 24)
    hit["end_user"] = "acme"
    found = await decided(stage, json.dumps([hit, call(2)]).encode(), policy(CACHE_HIT_POLICY=chosen), sent)
    assert found == {hit["id"]: decision, "chatcmpl-2": "billable"}
