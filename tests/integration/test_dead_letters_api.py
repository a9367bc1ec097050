"""Dead letters, usage statistics and unmapped customers over HTTP: for holders of the master key."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from connectors.api.dead_letters import MAX_LETTERS, RetryBody
from connectors.ingest.rejection_record import InvalidElement, rejection
from connectors.operations.ledgers import held_of
from schemas.customers import CustomerRecord, MappingVersion
from schemas.ledger import POSITION_KEY
from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.database import projector_parts, until
from tests.support.eventually import PATIENCE, eventually, soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import event, put, quick_delivery, statuses
from tests.support.sandbox import Lago
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import Stage


@pytest.fixture
async def server(kafka: Kafka, topic_prefix: str, stage: Stage) -> AsyncIterator[Server]:
    """Without Postgres."""
    partitions = stage.settings.kafka_partitions
    async with running_server(settings_for(kafka, topic_prefix, kafka_partitions=partitions), ("api",)) as running:
        yield running


async def answer_json(server: Server, path: str, status: int = 200, **body: Any) -> Any:
    answer = await (
        server.http.post(path, json=body, headers=BEARER) if body else server.http.get(path, headers=BEARER)
    )
    assert answer.status_code == status, answer.text
    return answer.json()


def calls(numbers: range, customer: str, cost: str = "0.5") -> list[Raw]:
    at = time.time_ns() // 1000
    return [raw(0, slp(n, at_us=at, cost=cost), customer=customer, received_us=at) for n in numbers]


async def test_requeued_dead_letters_are_bounded_and_arrive(stage: Stage, lago: Lago, server: Server) -> None:
    for name in ("e-1", "e-2", "e-3", "e-4"):
        await lago.fault(kind="poison", transaction_id=name)
    put(stage, [event(n) for n in range(5)])
    async with http_client(trust_env=False) as http:
        posting = stage.parts(delivery=quick_delivery(lago, http), retry_delay_s=0.05)
        async with stage.running("sink", posting), stage.running("retry", posting):
            await soon(lambda: list(statuses(stage).values()).count("failed") == 4, limit_s=30)
            await lago.http.delete("/__faults")
            dry = await answer_json(server, "/webhooks/retry", dry_run=True)
            assert (dry["dead_letters"], dry["requeued"]) == (4, 4)
            assert (await answer_json(server, "/webhooks/retry", 202, limit=1))["requeued"] == 1
            assert (await answer_json(server, "/webhooks/retry", 202, limit=1, comment="well again"))["requeued"] == 1
            bare = await server.http.post("/webhooks/retry", headers=BEARER)
            assert (bare.status_code, bare.json()["requeued"]) == (202, 2)
            assert (await answer_json(server, "/webhooks/retry", 202, comment="again"))["dead_letters"] == 0
            await soon(lambda: set(statuses(stage).values()) == {"completed"}, limit_s=30)
    result = await server.stats(lambda result: result["delivered"] == 5)
    assert (result["delivered"], result["dead"], result["retrying"], result["pending"]) == (5, 0, 0, 0)
    assert [line["actor"] for line in stage.values(stage.topics.audit)] == ["master key"] * 3
    assert MAX_LETTERS == RetryBody().limit == 1000


async def test_the_steps_of_usage_are_shown_in_numbers(stage: Stage, server: Server) -> None:
    stage.map("acme", "org", "sub")
    at = time.time_ns() // 1000
    bad = raw(0, slp(9, cost="-1"), customer="acme", received_us=at)
    good = calls(range(4), "acme")  # built once: a repeat has the times of its call
    stage.put([*good, *good, bad, *calls(range(5, 6), "acme", cost="0")])
    stage.put(calls(range(6, 7), "ghost"))
    async with stage.running("meter", stage.parts()):
        await soon(lambda: len(stage.values(stage.topics.events)) == 1, limit_s=20)
        await soon(lambda: stage.sensors.calls.get("billable") == 5, limit_s=20)
    await soon(lambda: len(stage.read(stage.topics.rejected)) == 1)
    never_received = rejection(InvalidElement("wrong_type", "spend"), b"{}", at)
    stage.producer.produce(stage.topics.rejected, never_received, b"acme")
    stage.producer.flush(10 * PATIENCE)
    result = await server.stats(
        lambda result: result["received"] == 11 and result["pending"] == 1 and len(result["rejected_by_reason"]) == 2
    )
    assert (result["received"], result["accepted"], result["duplicate"], result["rejected"]) == (11, 6, 4, 1)
    assert result["rejected_by_reason"] == {"negative_cost": 1, "wrong_type": 1}
    assert (result["pending"], result["delivered"]) == (1, 0)
    assert (result["held_windows"], result["held_over_bound"]) == (1, [])


async def test_the_age_of_the_oldest_waiting_record_is_shown(stage: Stage, server: Server) -> None:
    """No meter runs: a record received an hour ago waits for an hour."""
    hour_ago = time.time_ns() // 1_000_000 - 3_600_000
    stage.producer.produce(stage.topics.raw, b"{}", b"acme", timestamp=hour_ago)
    stage.producer.flush(10 * PATIENCE)
    result = await server.stats()
    assert 3600 <= result["oldest_age_seconds"] < 3700
    assert result["oldest_age_seconds_by_topic"]["events"] == 0


async def test_unmapped_customers_are_listed_with_their_amounts(
    kafka: Kafka, topic_prefix: str, stage: Stage, database: str
) -> None:
    stage.map("acme", "org", "sub")
    stage.put([*calls(range(3), "ghost"), *calls(range(3, 4), "spirit"), *calls(range(4, 6), "acme")])
    settings = settings_for(kafka, topic_prefix, kafka_partitions=2, database_url=SecretStr(database))
    async with projector_parts(stage, database) as project, running_server(settings, ("api",)) as server:
        async with stage.running("meter", stage.parts()), stage.running("project", project):
            await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 6)
            result = (await answer_json(server, "/customers/unmapped"))["customers"]
            assert [(one["litellm_customer_id"], one["calls"], one["usd"]) for one in result] == [
                ("ghost", 3, "1.5"),
                ("spirit", 1, "0.5"),
            ]
            stage.map("ghost", "org", "sub")
            query = "SELECT count(*) FROM held_parts WHERE transaction_id IS NULL"
            await until(database, query, lambda count: count == 1)
        result = (await answer_json(server, "/customers/unmapped"))["customers"]
    assert [one["litellm_customer_id"] for one in result] == ["spirit"]


async def test_a_customer_that_is_mapped_to_an_absent_org_has_one_reason_everywhere(
    kafka: Kafka, topic_prefix: str, stage: Stage, database: str
) -> None:
    """Earlier `explain` and `GET /customers/unmapped` kept the reason of the moment at which the call was counted."""
    stage.put(calls(range(1), "ghost"))
    settings = settings_for(kafka, topic_prefix, kafka_partitions=2, database_url=SecretStr(database))
    async with projector_parts(stage, database) as project, running_server(settings, ("api",)) as server:
        async with stage.running("meter", stage.parts()), stage.running("project", project):
            await until(database, "SELECT count(*) FROM held_parts", lambda count: count == 1)
            record = CustomerRecord("ghost", (MappingVersion(0, "nowhere", "tenant"),), 0, 0)
            stage.producer.produce(stage.topics.customers, msgspec.json.encode(record), "ghost")
            stage.producer.flush(10 * PATIENCE)
            await until(database, "SELECT count(*) FROM customer_records", lambda count: count == 1)
            await soon(lambda: _held_reasons(stage) == ["no_subscription"], limit_s=30)
        listed = (await answer_json(server, "/customers/unmapped"))["customers"]
        explained = await meterbridge(stage, "explain", "--request", "chatcmpl-0", DATABASE_URL=database)
    assert listed == [] and "held (no_subscription)" in explained.out, explained.out


def _held_reasons(stage: Stage) -> list[str]:
    """What `meterbridge held list` reads."""
    return [one.reason for one in asyncio.run(held_of(stage.deployment))]


async def test_without_postgres_unmapped_customers_cannot_be_listed(server: Server) -> None:
    assert (await answer_json(server, "/customers/unmapped", 501))["reason"] == "needs_postgres"


async def test_without_the_master_key_it_is_refused(server: Server) -> None:
    for path in ("/webhooks/stats", "/customers/unmapped"):
        assert (await server.http.get(path)).status_code == 401, path
    assert (await server.http.post("/webhooks/retry", json={})).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"), [("{", 400), ('{"limit": 5000}', 422), ('{"raeson": "x"}', 422), ('{"kind": "all"}', 422)]
)
async def test_a_wrong_request_requeues_nothing(server: Server, body: str, status: int) -> None:
    answer = await server.http.post("/webhooks/retry", content=body, headers=BEARER)
    assert answer.status_code == status


@pytest.mark.parametrize("moment", [-1, -2, 10**30])
@pytest.mark.parametrize("name", ["since_ms", "until_ms"])
async def test_a_moment_outside_of_1970_to_9999_is_refused(server: Server, name: str, moment: int) -> None:
    """Kafka takes -1 for the end of a topic, and no number of more than 64 bits."""
    body = {name: moment, "dry_run": True}
    result = await server.http.post("/webhooks/retry", json=body, headers=BEARER)
    assert (result.status_code, result.json()["reason"]) == (422, "invalid_fields")


async def test_a_damaged_ledger_and_a_missing_topic_are_named_with_503(stage: Stage, server: Server) -> None:
    """An operator must repair them; the request was right."""
    await server.stats()
    stage.producer.produce(stage.topics.changelog, b"\xff", POSITION_KEY, partition=0)
    stage.producer.flush(10 * PATIENCE)
    damaged = await answer_until(server, "/webhooks/stats", 503)
    assert damaged["reason"] == "unreadable_ledger"
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    admin.delete_topics([stage.topics.dlq])[stage.topics.dlq].result()
    eventually(lambda: stage.topics.dlq not in admin.list_topics(timeout=10 * PATIENCE).topics)
    missing = await answer_json(server, "/webhooks/retry", 503, kind="events", dry_run=True)
    assert missing["reason"] == "topic_missing"


async def answer_until(server: Server, path: str, status: int) -> Any:
    """Return the first answer with this status: answers are cached for two seconds."""

    async def ask() -> httpx.Response:
        return await server.http.get(path, headers=BEARER)

    while (answer := await ask()).status_code != status:
        assert answer.status_code == 200, answer.text
        await asyncio.sleep(0.1)
    return answer.json()
