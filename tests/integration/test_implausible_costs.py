"""Implausible costs are listed with their amounts, billed when an operator accepts them by reason, and never before."""

import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.database import rows
from tests.support.enriched import usage
from tests.support.eventually import soon
from tests.support.history import TOPICS
from tests.support.kafka import Kafka
from tests.support.projection import Writer
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage


@pytest.fixture
async def server(kafka: Kafka, topic_prefix: str, stage: Stage) -> AsyncIterator[Server]:
    """Without Postgres."""
    partitions = stage.settings.kafka_partitions
    async with running_server(settings_for(kafka, topic_prefix, kafka_partitions=partitions), ("api",)) as running:
        yield running


def calls(*costs: str) -> list[Raw]:
    """Calls 0, 1, ..., all of the present."""
    at = time.time_ns() // 1000
    return [raw(0, slp(n, at_us=at, cost=cost), received_us=at) for n, cost in enumerate(costs)]


def billed(stage: Stage) -> Decimal:
    events = stage.values(stage.topics.events)
    return sum((Decimal(one["precise_total_amount_cents"]) for one in events), Decimal(0))


async def test_an_implausible_cost_is_billed_when_an_operator_accepts_it(stage: Stage) -> None:
    """Within the dedupe retention Postgres is not needed: the meter itself recognises repeats."""
    stage.map("acme", "org", "sub")
    stage.put(calls("87654", "0.5"))
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage) == 50, limit_s=30)
        listed = (await meterbridge(stage, "dlq", "list", "--json")).json
        assert listed["by_reason"] == {"implausible_cost": {"count": 1, "usd": "87654"}}
        silent = (await meterbridge(stage, "dlq", "requeue", "--comment", "it is there", "--json")).json
        assert (silent["requeued"], silent["unaccepted"]) == (0, 1)
        dry = await meterbridge(stage, "dlq", "requeue", "--reason", "implausible_cost", "--dry-run")
        assert "1 unaccepted\nUnaccepted: " in dry.out and "To bill them, add `--accept implausible_cost`." in dry.out
        wrong = await meterbridge(stage, "dlq", "requeue", "--accept", "beyond_horizon")
        assert wrong.code == 2 and "cannot be overruled. Give implausible_cost" in wrong.err
        accepted = ("dlq", "requeue", "--accept", "implausible_cost", "--comment", "a real bill", "--json")
        assert (await meterbridge(stage, *accepted)).json["requeued"] == 1
        assert (await meterbridge(stage, *accepted)).json["requeued"] == 0
        await soon(lambda: billed(stage) == 8765450, limit_s=30)
    assert (await meterbridge(stage, "dlq", "list", "--json")).json["count"] == 0
    line = next(one for one in stage.values(stage.topics.audit) if one.get("reason") == "a real bill")
    assert line["target"]["accept"] == "implausible_cost" and Decimal(str(line["cost_usd"])) == 87654


async def test_the_http_endpoint_accepts_the_same_reason(stage: Stage, server: Server) -> None:
    stage.map("acme", "org", "sub")
    stage.put(calls("87654", "0.5", "0", "0"))

    async def retried(**body: Any) -> dict[str, Any]:
        answer = await server.http.post("/webhooks/retry", json=body, headers=BEARER)
        assert answer.status_code == 202, answer.text
        result: dict[str, Any] = answer.json()
        return result

    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage) == 50, limit_s=30)
        assert (await retried(kind="calls"))["unaccepted"] == 1
        assert (await retried(kind="calls", accept="implausible_cost"))["requeued"] == 1
        await soon(lambda: billed(stage) == 8765450, limit_s=30)
    result = await server.stats(lambda result: result["received"] == 5)
    assert result["by_decision"] == {
        "billable": {"calls": 2, "usd": "87654.5"},
        "unpriced": {"calls": 2, "usd": "0"},
    }
    assert (result["accepted"], result["unbilled"], result["rejected"]) == (4, 2, 1)
    wrong = await server.http.post("/webhooks/retry", json={"accept": "cost_differs"}, headers=BEARER)
    assert wrong.status_code == 422


async def test_a_copy_with_another_cost_is_listed_and_never_released(stage: Stage) -> None:
    stage.map("acme", "org", "sub")
    at = time.time_ns() // 1000
    stage.put([raw(0, slp(0, at_us=at, cost=cost), received_us=at) for cost in ("0.5", "0.6")])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage) == 50, limit_s=30)
        listed = (await meterbridge(stage, "dlq", "list", "--json")).json
        assert listed["by_reason"] == {"cost_differs": {"count": 1, "usd": "0.6"}}
        done = (await meterbridge(stage, "dlq", "requeue", "--json")).json
        assert (done["requeued"], done["impossible"]) == (0, 1)
        assert (await meterbridge(stage, "dlq", "dismiss", "--until", "0s", "--comment", "seen", "--json")).json[
            "dismissed"
        ] == 1
    assert (await meterbridge(stage, "dlq", "list", "--json")).json["count"] == 0
    assert billed(stage) == 50


@pytest.mark.parametrize("together", [False, True])
async def test_a_call_that_is_billed_in_the_end_replaces_its_unbilled_row(url: str, together: bool) -> None:
    unbilled = usage(1, decision="unpriced", cost_usd=Decimal(0), part="")
    now = usage(1, cost_usd=Decimal("0.5"), held="no_mapping", part="d-t-0-7")
    async with Writer(url) as writer:
        for values in ([unbilled, now],) if together else ([unbilled], [now]):
            await writer.put(TOPICS.enriched, *values)
        await writer.put(TOPICS.enriched, unbilled, now)  # read again: nothing changes, nothing is held twice
    found = await rows(url, "SELECT decision, cost_usd, part, raw_offset FROM llm_usage_log")
    assert [tuple(row) for row in found] == [("billable", Decimal("0.5"), "d-t-0-7", 1)]
    held = await rows(url, "SELECT held_calls, held_cost_usd FROM usage_parts")
    assert [tuple(row) for row in held] == [(1, Decimal("0.5"))]


async def test_a_billed_row_is_never_withdrawn(url: str) -> None:
    async with Writer(url) as writer:
        await writer.put(TOPICS.enriched, usage(1), usage(1, decision="unpriced", cost_usd=Decimal(0), part=""))
        copy = msgspec.structs.replace(
            usage(1, cost_usd=Decimal(9)), offset=9
        )  # only a rebuilt ledger counts offset 1 again
        await writer.put(TOPICS.enriched, copy)
    found = await rows(url, "SELECT decision, cost_usd FROM llm_usage_log")
    assert [tuple(row) for row in found] == [("billable", Decimal("0.000145"))]
