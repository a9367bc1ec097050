"""Usage recorded for an org: from the caller to Lago once, after any repeats and waits."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_records import OrgRecords, StoredIds
from connectors.billing.usage_recorder import KafkaUsage
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from connectors.lago.client import LagoClient
from connectors.library import orgs
from connectors.library.standalone import UsageThroughKafka
from schemas.customers import OrgRecord, Period
from schemas.moments import HOUR_US, SECOND_US, to_iso
from schemas.policy import MeterPolicy
from tests.support.calls import raw, slp
from tests.support.command import Ended, meterbridge
from tests.support.database import projector_parts, until
from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.org_changer import org_records
from tests.support.posting import quick_delivery, statuses
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.server import running_server, settings_for
from tests.support.stage import QUICK, Stage

#: What a call of the API costs at Lago, cents.
PRICE = 50
copy = msgspec.structs.replace


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    """Lago counts calls at half a dollar each, and sums the cost of LiteLLM's calls."""
    async with lago_sandbox(clock=time.time) as sandbox:
        tokens = await sandbox.metric("ai_usage")
        calls = await sandbox.metric("api_call", aggregation_type="count_agg", field_name=None)
        price = {"amount": f"{PRICE / 100:.2f}"}
        await sandbox.plan(
            charges=[
                {"billable_metric_id": tokens, "charge_model": "dynamic", "properties": {}},
                {"billable_metric_id": calls, "charge_model": "standard", "properties": price},
            ]
        )
        # Usage of yesterday is in the running period on every day of a month.
        since = to_iso(now_us() - 45 * 24 * HOUR_US)
        await sandbox.subscribe("sub-a", "org_a", subscription_at=since, billing_time="anniversary")
        yield sandbox


async def lago_usage(lago: Lago) -> dict[str, tuple[int, int]]:
    """Units and cents that Lago counts, by metric."""
    usage = await lago.usage("org_a", "sub-a")
    return {
        one["billable_metric"]["code"]: (int(Decimal(one["units"])), one["amount_cents"])
        for one in usage["charges_usage"]
    }


class OrgBillingSetup:
    """An org's billing with a stage and a sandbox."""

    def __init__(self, stage: Stage, lago: Lago, billing: OrgBilling, records: OrgRecords) -> None:
        self.stage, self.lago, self.billing, self.records = stage, lago, billing, records

    async def called(self, transaction_id: str, **properties: Any) -> None:
        """Records one call of the API."""
        await self.billing.record("org_a", "api_call", transaction_id, properties, None)

    async def subscribed(self) -> None:
        """The org's record names the subscription that Lago has."""
        began = Period("sub-a", 0, plan_code="llm")
        await self.records.change("org_a", lambda org: copy(org, periods=(began,)))

    @asynccontextmanager
    async def running(self, policy: MeterPolicy = QUICK, database: str = "") -> AsyncIterator[None]:
        """Meter and sink, and with a database also the projector."""
        async with http_client(trust_env=False) as http:
            delivery = quick_delivery(self.lago, http)
            async with (
                self.stage.running("meter", self.stage.parts(policy)),
                self.stage.running("sink", self.stage.parts(delivery=delivery)),
            ):
                if not database:
                    yield
                    return
                async with projector_parts(self.stage, database) as project, self.stage.running("project", project):
                    yield


@pytest.fixture
async def corner(stage: Stage, lago: Lago) -> AsyncIterator[OrgBillingSetup]:
    where = stage.settings.kafka_bootstrap_servers
    producer = KafkaProducer(producer_config(where, answer_within_s=15))
    async with (
        org_records(where, stage.settings.topic_prefix) as records,
        http_client(trust_env=False) as http,
    ):
        usage = KafkaUsage(producer, stage.topics.raw, now_us=now_us)
        client = LagoClient(http, lago.url, KEY)
        yield OrgBillingSetup(stage, lago, OrgBilling(client, StoredIds(records), usage, now_us=now_us), records)
        await producer.close()


def completed(stage: Stage) -> int:
    return list(statuses(stage).values()).count("completed")


@pytest.mark.parametrize("window_us", [SECOND_US, 0])
async def test_usage_recorded_three_times_and_replayed_is_billed_once(corner: OrgBillingSetup, window_us: int) -> None:
    """Also in addition to calls of a customer that is mapped to the org, which are billed as usual."""
    stage = corner.stage
    stage.map("acme", "org_a", "sub-a")
    at = now_us()
    stage.put([raw(0, slp(n, at_us=at, cost="0.25"), customer="acme", received_us=at) for n in range(4)])
    for number in [*range(10), *range(10), *range(10)]:
        await corner.called(f"tx-{number}", endpoint="/v1/chat", tokens=number)
    async with corner.running(replace(QUICK, window_us=window_us)):
        await soon(lambda: stage.sensors.calls.get("metered") == 10 and stage.sensors.calls.get("billable") == 4)
        await soon(lambda: completed(stage) == len(stage.values(stage.topics.events)) >= 11, limit_s=20)
        assert (await meterbridge(stage, "replay", "--from", "1h", "--to", "2100-01-01")).code == 0
        await soon(lambda: stage.sensors.calls["duplicate"] == 20 + 34, limit_s=20)
    assert await lago_usage(corner.lago) == {"ai_usage": (88, 100), "api_call": (10, 10 * PRICE)}
    events = [one for one in stage.values(stage.topics.events) if one["code"] == "api_call"]
    assert {one["properties"]["transaction_id"] for one in events} == {f"tx-{number}" for number in range(10)}
    assert {one["properties"]["endpoint"] for one in events} == {"/v1/chat"}


async def test_usage_of_an_org_without_a_subscription_waits_and_is_then_billed(corner: OrgBillingSetup) -> None:
    """A restart in between changes nothing: held usage is in the ledger."""
    stage = corner.stage
    await corner.called("tx-1")
    async with corner.running():
        await soon(lambda: stage.sensors.calls.get("metered") == 1)
        await corner.records.change("org_a", lambda org: copy(org, name="A", subscription_id="sub-a"))
        assert stage.values(stage.topics.events) == []
    async with corner.running():
        await corner.called("tx-2")
        await soon(lambda: stage.sensors.calls["metered"] == 2)
        await corner.subscribed()
        await soon(lambda: completed(stage) == 2, limit_s=20)
    assert (await lago_usage(corner.lago))["api_call"] == (2, 2 * PRICE)


async def test_each_event_is_explained_and_everything_adds_up(corner: OrgBillingSetup, database: str) -> None:
    """Some of it was held at first, some of it written off by an operator."""
    stage = corner.stage

    async def run(*words: str) -> Ended:
        return await meterbridge(
            stage, *words, "--json", DATABASE_URL=database, LAGO_API_URL=corner.lago.url, LAGO_API_KEY=KEY
        )

    async with corner.running(database=database):
        for number in range(3):
            await corner.called(f"early-{number}")
        await corner.billing.record("org_none", "api_call", "lost", None, None)
        await until(database, "SELECT count(*) FROM held_parts WHERE transaction_id IS NULL", lambda count: count == 4)
        held = await run("held", "list")
        assert {(one["customer"], one["id_kind"], one["calls"]) for one in held.json["held"]} == {
            ("org_a", "org", 3),
            ("org_none", "org", 1),
        }, held.out
        await corner.subscribed()
        for number in range(3):
            await corner.called(f"late-{number}")
        query = "SELECT count(*) FROM lago_events WHERE status = 'completed'"
        await until(database, query, lambda count: count == 6)
        for name in ("early-1", "late-1"):
            (result,) = (await run("explain", "--request", name)).json["calls"]
            assert (result["decision"], result["customer"]) == ("metered", "org_a")
            assert (result["event"]["status"], result["event"]["proved"]) == ("completed", True)
            assert result["event"]["transaction_id"] == result["identity"]
        gone = await run("held", "write-off", "--customer", "org_none", "--comment", "a test")
        assert (gone.code, gone.json["calls"]) == (0, 1), gone.err
        await until(
            database, "SELECT count(*) FROM held_parts WHERE written_off_at IS NOT NULL", lambda count: count == 1
        )
        reconciled = await run("reconcile", "--lago")
        assert (reconciled.code, reconciled.json["complaints"]) == (0, []), reconciled.err
        assert reconciled.json["billed_calls"] == 6


async def test_the_functions_record_usage_of_an_org_that_only_lago_knows(
    kafka: Kafka, topic_prefix: str, lago: Lago
) -> None:
    """It has no mapping and no webhook reported it: the api asks Lago because usage was recorded for it."""
    settings = settings_for(kafka, topic_prefix, lago_api_url=lago.url, lago_api_key=KEY)
    async with running_server(settings, learn_every_s=0.2):
        event = await orgs.record_api_call("org_a", "tx-1", "/v1/chat", tokens=7)
        assert event.properties == {"endpoint": "/v1/chat", "tokens": "7", "org_id": "org_a"}
        assert orgs.is_org_customer("org_a") and not orgs.is_org_customer("user_a")
        stage = Stage(kafka.bootstrap, topic_prefix, settings.kafka_partitions)
        await soon(lambda: bool(stage.values(stage.topics.orgs)))
        assert [one["external_id"] for one in stage.values(stage.topics.orgs)[-1]["periods"]] == ["sub-a"]
        [value] = stage.values(stage.topics.raw)
        assert value["metered"]["transaction_id"] == "tx-1"
    with pytest.raises(orgs.LagoIntegrationError, match="LAGO_API_KEY"):
        await orgs.get_customer("org_a")


async def test_a_process_that_knows_kafka_only_by_its_variables_records_usage(
    kafka: Kafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like the specification's middleware in a service without other configuration."""
    settings = settings_for(kafka, topic_prefix)
    stage = Stage(kafka.bootstrap, topic_prefix, settings.kafka_partitions)
    for name, value in {
        "LAGO_API_KEY": KEY,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA_PARTITIONS": str(settings.kafka_partitions),
        "TOPIC_PREFIX": topic_prefix,
    }.items():
        monkeypatch.setenv(name, value)
    orgs.serve_with(None)
    for _ in range(2):
        await orgs.record_api_call("org_a", "tx-1", "/v1/chat", user_id="user_1", tokens=150)
    values = stage.values(stage.topics.raw)
    assert [(one["metered"]["org_id"], one["metered"]["transaction_id"]) for one in values] == [("org_a", "tx-1")] * 2
    monkeypatch.setenv("TOPIC_PREFIX", "elsewhere.")
    for producer in list(UsageThroughKafka._producers):
        await UsageThroughKafka._producers.pop(producer).close()
    with pytest.raises(orgs.LagoIntegrationError, match="usage_needs_kafka"):
        await orgs.record_api_call("org_a", "tx-2", "/v1/chat")


async def test_an_orgs_subscription_id_is_stored_in_its_record(corner: OrgBillingSetup) -> None:
    """A second subscription of the org, in any process, uses the same id."""
    await corner.lago.plan("starter")
    created = await corner.billing.subscribe("org_b", "starter", "anniversary", None)
    known = await corner.records.get("org_b") or OrgRecord("")
    assert known.subscription_id == created.external_id and created.external_id.startswith("org_b_starter_")
    again = await corner.billing.subscribe("org_b", "llm", "anniversary", None)
    assert again.external_id == created.external_id


async def test_usage_refused_as_too_old_is_accepted_once_later_and_no_call_is_mistaken_for_it(
    corner: OrgBillingSetup, database: str
) -> None:
    """The usage log is asked only for its identity: a LiteLLM call may have the same request id and start."""
    stage, old = corner.stage, now_us() - 30 * HOUR_US
    stage.map("acme", "org_a", "sub-a")
    call = slp(1, at_us=old + SECOND_US, litellm_call_id=None, id="tx-1", startTime=old / SECOND_US)
    stage.put([raw(0, call, customer="acme", received_us=now_us(), checked_at=now_us())])

    async def record_usage() -> None:
        await corner.billing.record("org_a", "api_call", "tx-1", None, old / SECOND_US)

    await corner.subscribed()
    async with corner.running(database=database):
        await record_usage()
        await until(database, "SELECT count(*) FROM rejected_calls", lambda count: count == 1)
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 1)
        done = await meterbridge(stage, "dlq", "requeue", "--kind", "calls", "--json", DATABASE_URL=database)
        assert (done.code, done.json["requeued"]) == (0, 1), done.err
        await until(database, "SELECT count(*) FROM lago_events WHERE status = 'completed'", lambda count: count == 2)
        await record_usage()
        await soon(lambda: stage.sensors.calls.get("duplicate") == 1)
    assert (await lago_usage(corner.lago))["api_call"] == (1, PRICE)
