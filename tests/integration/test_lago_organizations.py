"""Two Lago organisations that have customers with the same ids: each is subscribed, read and billed in its own."""

import asyncio
import hmac
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from connectors.config.organization_settings import LagoOrganization
from connectors.config.settings import Settings
from connectors.lago.client import LagoClient
from schemas.policy import MeterPolicy
from tests.integration.test_mapping_api import json_of, refused
from tests.support.calls import raw, slp
from tests.support.eventually import soon, within
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import quick_delivery, statuses
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stage import QUICK, Stage

EUS = "the-key-of-eu"
SECRET = "eus-secret"
PLAN = {"plan_code": "ai_basic"}


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=time.time, api_key=KEY) as running:
        await running.usage_plan("ai_basic")
        yield running


@pytest.fixture
async def eu() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=time.time, api_key=EUS) as running:
        running.http.headers["Authorization"] = f"Bearer {EUS}"
        await running.usage_plan("ai_basic")
        yield running


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str, lago: Lago, eu: Lago) -> Settings:
    further = LagoOrganization(id="eu", url=eu.url, key=EUS, webhook_secret=SECRET)
    return settings_for(
        kafka,
        topic_prefix,
        lago_api_url=lago.url,
        lago_organizations=(further,),
        subscription_id_template="sub_{org_id}",
        api_port=0,
        api_rate_limit=0,
        mapping_delay_seconds=1,
    )


async def set_up(server: Server, org: str) -> dict[str, Any]:
    path = f"/api/v1/billing/org/organizations/{org}/setup"
    answer = await server.http.post(path, json=PLAN, headers=BEARER)
    result: dict[str, Any] = answer.json()
    assert answer.status_code == 201, result
    return result


@asynccontextmanager
async def acme_in_both(settings: Settings) -> AsyncIterator[Server]:
    """The management API, and an org of the same external id in each organisation."""
    async with running_server(settings, ["api"]) as server:
        for org in ("acme", "eu::acme"):
            await set_up(server, org)
        yield server


async def customers(lago: Lago) -> list[str]:
    return [one["external_id"] for one in (await lago.get("/customers")).json()["customers"]]


async def test_an_org_is_created_and_read_only_in_its_own_organisation(
    settings: Settings, lago: Lago, eu: Lago
) -> None:
    async with running_server(settings, ["api"]) as server:
        await set_up(server, "acme")
        assert (await customers(lago), await customers(eu)) == (["acme"], [])
        await set_up(server, "eu::acme")
        await set_up(server, "eu::only")
        assert (await customers(lago), sorted(await customers(eu))) == (["acme"], ["acme", "only"])
        ask = server.http.get
        for org, status in (("acme", 200), ("eu::acme", 200), ("eu::only", 200), ("only", 404)):
            for part in ("subscription", "usage/current", "invoices", "dashboard"):
                answer = await ask(f"/api/v1/billing/org/organizations/{org}/{part}", headers=BEARER)
                if part != "invoices" or status == 200:
                    assert answer.status_code == status, (org, part, answer.text)
        one = (await ask("/api/customers/eu::only", headers=BEARER)).json()
        assert (one["external_id"], one["mapping"]) == ("eu::only", None)
        listed = (await ask("/api/customers?organization=eu", headers=BEARER)).json()["customers"]
        assert sorted(one["external_id"] for one in listed) == ["eu::acme", "eu::only"]
        listed = (await ask("/api/customers", headers=BEARER)).json()["customers"]
        assert [one["external_id"] for one in listed] == ["acme"]
        assert (
            refused(await ask("/api/billing/plans?organization=us", headers=BEARER), 422)["reason"]
            == "unknown_organization"
        )


async def test_a_mapping_names_its_organisation_and_an_unknown_one_is_refused(
    settings: Settings, lago: Lago, eu: Lago
) -> None:
    async with acme_in_both(settings) as server:
        ours = json_of(await server.map("one", "acme", lago_organization_id="main"), 201)
        theirs = json_of(await server.map("two", "acme", lago_organization_id="eu"), 201)
        assert (ours["org_id"], ours["subscription"]) == ("acme", "sub_acme")
        shown = theirs["org_id"], theirs["lago_customer_id"], theirs["lago_organization_id"], theirs["subscription"]
        assert shown == ("eu::acme", "acme", "eu", "sub_eu::acme")
        unknown = await server.map("three", "acme", lago_organization_id="us")
        assert refused(unknown, 422)["reason"] == "unknown_organization"
        crossing = await server.map("three", "eu::acme", lago_organization_id="main")
        assert refused(crossing, 422)["reason"] == "other_organization"
        listed = await server.http.get("/customers/mappings?org=eu::acme", headers=BEARER)
        assert [one["litellm_customer_id"] for one in json_of(listed)["mappings"]] == ["two"]
    with_one = settings.model_copy(update={"lago_organizations": ()})
    async with running_server(with_one, ["api"]) as server:
        answer = await server.http.get("/api/v1/billing/org/organizations/eu::acme/usage/current", headers=BEARER)
        assert refused(answer, 422)["reason"] == "unknown_organization", "its record says where it is"
        for name in ("eu", "us"):  # with orgs of a further organisation the prefix always counts, configured or not
            elsewhere = await server.map("three", "acme", lago_organization_id=name)
            assert refused(elsewhere, 422)["reason"] == "unknown_organization"
        json_of(await server.map("three", "acme", lago_organization_id="main"), 201)
    assert (await customers(lago), await customers(eu)) == (["acme"], ["acme"])


async def test_a_webhook_belongs_to_the_organisation_that_signed_it(settings: Settings, lago: Lago, eu: Lago) -> None:
    both = settings.model_copy(update={"lago_webhook_secret": ()})
    async with acme_in_both(both) as server:
        json_of(await server.map("two", "acme", lago_organization_id="eu"), 201)
        ended = await eu.http.delete("/api/v1/subscriptions/sub_eu::acme")
        assert ended.status_code == 200, ended.text
        body = msgspec.json.encode(
            {
                "webhook_type": "subscription.terminated",
                "object_type": "subscription",
                "subscription": {"external_id": "sub_eu::acme", "external_customer_id": "acme"},
            }
        )
        signature = b64encode(hmac.digest(SECRET.encode(), body, sha256)).decode()
        answer = await server.http.post("/webhooks/lago", content=body, headers={"X-Lago-Signature": signature})
        assert json_of(answer) == {"status": "applied"}
        assert (
            json_of(await server.mapping("two"))["subscription"] is None
            or (await eu.get("/subscriptions", external_customer_id="acme")).json()["subscriptions"] == []
        )
        orgs = {
            one["org_id"]: one
            for one in Stage(both.kafka_bootstrap_servers, both.topic_prefix, 3).values(
                f"{both.topic_prefix}billing.orgs"
            )
        }
    assert "terminated_at" in orgs["eu::acme"]["periods"][-1] and orgs["eu::acme"]["organization"] == "eu"
    assert "terminated_at" not in orgs["acme"]["periods"][-1] and "organization" not in orgs["acme"]


async def cents(lago: Lago) -> Decimal:
    return Decimal((await lago.stats())["totals"]["cents"])


async def test_after_a_move_and_a_correction_each_call_is_billed_once_in_the_right_organisation(
    settings: Settings, kafka: Kafka, topic_prefix: str, lago: Lago, eu: Lago
) -> None:
    """A move starts now: earlier calls stay. A correction replaces the mistake from its start on."""
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=3)
    policy: MeterPolicy = replace(QUICK, organizations=("eu",))
    async with acme_in_both(settings) as server, http_client(trust_env=False) as http:
        await asyncio.sleep(1.1)  # subscriptions have begun when the calls end
        json_of(await server.map("moved", "acme", lago_organization_id="main"), 201)
        json_of(await server.map("mistaken", "nobody", lago_organization_id="eu"), 201)
        delivery = quick_delivery(lago, http)
        delivery_eu = quick_delivery(eu, http)
        delivery_eu.wire = replace(delivery_eu.wire, poster=LagoClient(http, eu.url, EUS, organization="eu"))
        parts = stage.parts(policy, delivery, mapping_delay_s=1, organizations={"eu": lambda: delivery_eu})

        def call(number: int, customer: str, usd: str) -> None:
            now_us = time.time_ns() // 1000
            stage.put([raw(number, slp(number, at_us=now_us, cost=usd), customer=customer, received_us=now_us)])

        async with stage.running("meter", parts), stage.running("sink", parts):
            call(1, "moved", "0.10")
            call(2, "mistaken", "0.01")
            async with within(40):
                while await cents(lago) != 10:
                    await asyncio.sleep(0.05)
            moved = json_of(await server.map("moved", "acme", lago_organization_id="eu"))
            corrected = json_of(await server.map("mistaken", "acme", lago_organization_id="eu"))
            assert moved["corrected"] is None
            assert corrected["corrected"]["org_id"] == "eu::nobody"
            await asyncio.sleep(2.5)  # the mapping delay: the move has begun
            call(3, "moved", "0.20")
            call(4, "mistaken", "0.02")
            async with within(40):
                while await cents(eu) != 23:
                    await asyncio.sleep(0.05)
            await soon(lambda: set(statuses(stage).values()) == {"completed"})
    assert (await cents(lago), await cents(eu)) == (10, 23)
    manifests = [dict(message.headers())["manifest"] for message in stage.read(stage.topics.events)]
    named = sorted(str(msgspec.json.decode(manifest).get("organization", "")) for manifest in manifests)
    assert named.count("") == 1 and set(named) == {"", "eu"}
