"""A customer in Lago pays for usage that names it: by being saved here, or by `MAP_BY_IDENTITY`."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
import msgspec
import pytest

from connectors.config.settings import Settings
from connectors.processes.worker_parts import worker_parts
from schemas.customer_id import UNATTRIBUTED
from schemas.moments import HOUR_US, SECOND_US
from streams.app import ROLES
from streams.core.mapping.set_mapping import EndMappingRequest, MappingRequest, end_mapping, set_mapping
from streams.runtime.run import run_role
from tests.integration.test_mapping_api import json_of, refused
from tests.support.calls import Raw, raw, slp
from tests.support.eventually import PATIENCE, soon
from tests.support.kafka import Kafka
from tests.support.ports import free_port
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.server import BEARER, running_server, settings_for
from tests.support.stage import Stage

CUSTOMER = "customer-123"
BODY = {"external_id": CUSTOMER, "name": "Acme Corporation", "email": "billing@acme.com", "plan_code": "ai_basic"}


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=time.time) as running:
        metric = await running.metric("ai_usage")
        await running.plan("ai_basic", charges=[{"billable_metric_id": metric, "charge_model": "dynamic"}])
        yield running


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str, lago: Lago) -> Settings:
    return settings_for(
        kafka,
        topic_prefix,
        kafka_partitions=2,
        lago_api_url=lago.url,
        lago_api_key=KEY,
        window_seconds=0,
        api_port=0,
        api_rate_limit=0,
    )


@asynccontextmanager
async def metering(settings: Settings) -> AsyncIterator[None]:
    """The meter, created as a worker process creates it."""
    async with worker_parts(settings, "meter") as parts:
        stop = asyncio.Event()
        task = asyncio.ensure_future(run_role(ROLES["meter"](parts), stop))
        try:
            yield
        finally:
            stop.set()
            await task


def calls(count: int, customer: str = CUSTOMER) -> list[Raw]:
    at = time.time_ns() // 1000
    return [raw(0, slp(n, at_us=at), customer=customer, received_us=at) for n in range(count)]


def billed(stage: Stage) -> dict[str, Decimal]:
    """Cents by the customer that Lago bills."""
    sums: dict[str, Decimal] = {}
    for event in stage.values(stage.topics.events):
        org = event["properties"]["org_id"]
        sums[org] = sums.get(org, Decimal(0)) + Decimal(event["precise_total_amount_cents"])
    return sums


def identities_asked(port: int) -> dict[str, float]:
    """Ids that Lago was asked about, by its answer."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    return {
        outcome: float(value)
        for outcome, value in re.findall(
            r'^meterbridge_identities_asked_total{outcome="(\w+)"} (.+)$', text, re.MULTILINE
        )
    }


async def test_a_customer_that_is_saved_here_pays_for_usage_that_names_it(
    settings: Settings, kafka: Kafka, topic_prefix: str
) -> None:
    """An id need not be mapped to itself; earlier usage is billed too."""
    stage = Stage(kafka.bootstrap, topic_prefix, 2)
    stage.put(calls(3))
    async with running_server(settings, ["api"]) as server, metering(settings):
        created = await server.http.post("/api/customers", json=BODY, headers=BEARER)
        assert (created.status_code, created.json()["mapping"]["lago_customer_id"]) == (201, CUSTOMER)
        assert created.json()["mapping"]["subscription"] == created.json()["subscription"]["external_id"]
        await soon(lambda: billed(stage) == {CUSTOMER: Decimal("0.0435")})
        again = await server.http.post("/api/customers", json=BODY, headers=BEARER)
        assert (again.status_code, again.json()["mapping"]) == (200, created.json()["mapping"])
        audited = [line for line in stage.values(stage.topics.audit) if "/api/customers" in line["action"]]
        assert len(audited) == 2, "the customer, and who pays; nothing for the repeat"


async def test_a_mapping_set_or_ended_by_hand_stays_when_the_customer_is_saved(settings: Settings) -> None:
    async with running_server(settings, ["api"]) as server:
        json_of(await server.map(CUSTOMER, org="org_2"), 201)
        created = await server.http.post("/api/customers", json=BODY, headers=BEARER)
        assert (created.status_code, created.json()["mapping"]["lago_customer_id"]) == (201, "org_2")
        json_of(await server.map("gone"), 201)
        json_of(await server.http.delete("/customers/gone/mapping", headers=BEARER))
        saved = await server.http.post("/api/customers", json=BODY | {"external_id": "gone"}, headers=BEARER)
        assert saved.status_code == 201
        history = json_of(await server.http.get("/customers/gone/mapping/history", headers=BEARER))
        assert [one["deleted"] for one in history["versions"]] == [False, True]


@pytest.mark.long
async def test_with_map_by_identity_a_customer_in_lago_pays_for_its_own_id(
    settings: Settings, kafka: Kafka, topic_prefix: str, lago: Lago
) -> None:
    await lago.subscribe("sub_1", CUSTOMER, "ai_basic", subscription_at="2026-01-01T00:00:00Z")
    await lago.subscribe("sub_2", "stopped", "ai_basic", subscription_at="2026-01-01T00:00:00Z")
    stage = Stage(kafka.bootstrap, topic_prefix, 2)
    stage.put([*calls(3), *calls(2, "stranger"), *calls(2, UNATTRIBUTED), *calls(1, "stopped")])
    async with running_server(settings, ["api"]) as server:
        json_of(await server.map("stopped", org="stopped", is_active=False), 201)
        port = free_port()
        async with metering(settings.model_copy(update={"map_by_identity": True, "metrics_port": port})):
            await soon(lambda: billed(stage) == {CUSTOMER: Decimal("0.0435")})
            await soon(lambda: identities_asked(port) == {"customer": 1, "unknown": 2, "failed": 0})
        assert json_of(await server.mapping(CUSTOMER))["subscription"] == "sub_1"
        assert json_of(await server.mapping("stopped"))["is_active"] is False
        refused(await server.mapping("stranger"), 404)


async def test_without_it_no_customer_is_mapped_automatically(
    settings: Settings, kafka: Kafka, topic_prefix: str, lago: Lago
) -> None:
    await lago.subscribe("sub_1", CUSTOMER, "ai_basic", subscription_at="2026-01-01T00:00:00Z")
    stage = Stage(kafka.bootstrap, topic_prefix, 2)
    stage.put(calls(3))
    async with metering(settings):
        await soon(lambda: len(stage.values(stage.topics.enriched)) == 3)
        assert billed(stage) == {}
        assert stage.values(stage.topics.customers) == []


async def test_a_customer_that_was_deleted_long_ago_is_not_mapped_again(
    settings: Settings, kafka: Kafka, topic_prefix: str, lago: Lago
) -> None:
    """The record of a deletion is removed after 31 days, but not while Lago has a customer with the id."""
    await lago.subscribe("sub_1", CUSTOMER, "ai_basic", subscription_at="2026-01-01T00:00:00Z")
    stage = Stage(kafka.bootstrap, topic_prefix, 2)
    long_ago = time.time_ns() // 1000 - 40 * 24 * HOUR_US
    for name in (CUSTOMER, "stranger"):
        first = set_mapping(None, MappingRequest(name, name, "lago"), long_ago, SECOND_US)
        gone = end_mapping(first, EndMappingRequest(deleted=True), long_ago + HOUR_US, SECOND_US)
        stage.producer.produce(stage.topics.customers, msgspec.json.encode(gone), name)
    stage.producer.flush(10 * PATIENCE)
    port = free_port()
    by_identity = settings.model_copy(update={"map_by_identity": True, "metrics_port": port})
    async with running_server(settings, ["api"]) as server, metering(by_identity):
        await soon(lambda: any(one.value() is None for one in stage.read(stage.topics.customers)), limit_s=20)
        stage.put([*calls(3), *calls(2, "stranger")])
        await soon(lambda: identities_asked(port)["customer"] + identities_asked(port)["unknown"] >= 2)
        await asyncio.sleep(1)
        assert billed(stage) == {}
        [forgotten] = [one for one in stage.read(stage.topics.customers) if one.value() is None]
        assert forgotten.key() == b"stranger"
        refused(await server.mapping(CUSTOMER), 404)
