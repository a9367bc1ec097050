"""`AUTO_SUBSCRIBE`: a mapped customer's org without a subscription gets one; its usage is billed once, after any failure."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.config.settings import Settings
from tests.integration.test_mapping_api import json_of, refused
from tests.support.eventually import within
from tests.support.kafka import Kafka
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.server import Server, running_server, settings_for

EVERY_S = 0.2


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox() as running:
        await running.usage_plan("ai_basic")
        yield running


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str, lago: Lago) -> Settings:
    return settings_for(kafka, topic_prefix, lago_api_url=lago.url, auto_subscribe=True, api_port=0, api_rate_limit=0)


async def subscribed(server: Server, customer: str = "customer-1", limit_s: float = 20.0) -> dict[str, Any]:
    """The mapping, after its usage has a subscription."""
    async with within(limit_s):
        while (result := json_of(await server.mapping(customer)))["subscription"] is None:
            await asyncio.sleep(0.05)
    return result


async def subscriptions(lago: Lago, org: str = "org_1", status: str = "active") -> list[dict[str, Any]]:
    answer = await lago.get("/subscriptions", external_customer_id=org, **{"status[]": status})
    found: list[dict[str, Any]] = answer.json()["subscriptions"]
    return found


async def test_a_mapped_org_is_subscribed_to_the_plan_of_its_mapping_at_once(settings: Settings, lago: Lago) -> None:
    """Its customer is created too. It does not wait for the next look at all orgs, which is an hour away here."""
    async with running_server(settings, ["api"], learn_every_s=3600) as server:
        json_of(await server.map(), 201)
        result = await subscribed(server)
    [subscription] = await subscriptions(lago)
    assert result["subscription"] == subscription["external_id"]
    assert subscription["external_id"].startswith("org_1_ai_basic_")
    assert (subscription["plan_code"], subscription["billing_time"]) == ("ai_basic", "anniversary")
    customer = (await lago.get("/customers/org_1")).json()["customer"]
    assert customer["name"] == "org_1"


async def test_an_org_mapped_before_the_setting_is_subscribed_as_well(settings: Settings, lago: Lago) -> None:
    before = settings.model_copy(update={"auto_subscribe": False})
    async with running_server(before, ["api"], learn_every_s=EVERY_S) as server:
        assert json_of(await server.map(), 201)["held_reason"] == "no_subscription"
        await asyncio.sleep(3 * EVERY_S)
        assert await subscriptions(lago) == []
    async with running_server(settings, ["api"], learn_every_s=EVERY_S) as server:
        await subscribed(server)
    assert len(await subscriptions(lago)) == 1


async def test_several_processes_create_one_subscription_for_an_org(settings: Settings, lago: Lago) -> None:
    """The id is in the org's record before Lago gets it: two subscriptions would both be billed."""
    async with (
        running_server(settings, ["api"], learn_every_s=EVERY_S) as one,
        running_server(settings, ["api"], learn_every_s=EVERY_S) as other,
    ):
        names = [f"customer-{number}" for number in range(6)]
        await asyncio.gather(*(one.map(name, org=f"org_{name}") for name in names))
        await asyncio.gather(*(subscribed(server, name) for server in (one, other) for name in names))
    assert [len(await subscriptions(lago, f"org_{name}")) for name in names] == [1] * 6


async def test_an_org_left_between_customer_and_subscription_is_finished_by_the_next_process(
    settings: Settings, lago: Lago
) -> None:
    await lago.fault(kind="status", status=500, path="/api/v1/subscriptions", method="POST", count=3)
    async with running_server(settings, ["api"], learn_every_s=EVERY_S) as server:
        json_of(await server.map(), 201)
        await subscribed(server)
    assert len(await subscriptions(lago)) == 1


async def test_an_unknown_plan_is_reported_once_and_usage_is_held_until_it_exists(
    settings: Settings, lago: Lago, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running_server(settings, ["api"], learn_every_s=EVERY_S) as server:
        for number in range(3):
            json_of(await server.map(f"customer-{number}", org=f"org_{number}", billing_plan="ai_baisc"), 201)
        async with within(20):
            while json_of(await server.mapping("customer-2"))["held_reason"] != "plan_not_found":
                await asyncio.sleep(0.05)
        await asyncio.sleep(5 * EVERY_S)
        said_so = [line for line in capfd.readouterr().out.splitlines() if "org_not_subscribed" in line]
        assert len(said_so) == 1
        assert "ai_baisc" in said_so[0]
        assert (await lago.get("/customers/org_0")).status_code == 404, "no customer for a plan that there is not"
        await lago.usage_plan("ai_baisc")
        assert (await subscribed(server, "customer-2"))["held_reason"] is None


async def test_an_org_whose_subscription_was_ended_is_not_subscribed_again(settings: Settings, lago: Lago) -> None:
    """The end was intended: the org would be billed the plan's price again after it has left."""
    await lago.subscribe("sub_1", "org_1", "ai_basic")
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    async with running_server(settings, ["api"], learn_every_s=EVERY_S) as server:
        json_of(await server.map(), 201)
        json_of(await server.map("customer-2", org="org_2"), 201)
        await subscribed(server, "customer-2")
        assert json_of(await server.mapping())["held_reason"] == "no_subscription"
    assert await subscriptions(lago) == []


async def test_a_named_subscription_and_an_inactive_mapping_create_none(settings: Settings, lago: Lago) -> None:
    async with running_server(settings, ["api"], learn_every_s=EVERY_S) as server:
        json_of(await server.map("named", org="org_1", external_subscription_id="sub_elsewhere"), 201)
        json_of(await server.map("stopped", org="org_2", is_active=False), 201)
        json_of(await server.map("last", org="org_3"), 201)
        await subscribed(server, "last")
    assert await subscriptions(lago, "org_1") == await subscriptions(lago, "org_2") == []


async def test_of_several_plans_for_one_org_the_one_named_first_is_used(settings: Settings, lago: Lago) -> None:
    """Not the one whose process looks first: the others would change the plan."""
    await lago.usage_plan("ai_second")
    before = settings.model_copy(update={"auto_subscribe": False})
    async with running_server(before, ["api"], learn_every_s=3600) as server:
        json_of(await server.map("z", billing_plan="ai_basic"), 201)
        json_of(await server.map("a", billing_plan="ai_second"), 201)
    async with running_server(settings, ["api"], learn_every_s=EVERY_S) as server:
        await subscribed(server, "a")
    assert [one["plan_code"] for one in await subscriptions(lago)] == ["ai_basic"]


async def test_an_org_that_lago_would_mistake_for_another_is_refused_and_reported(settings: Settings) -> None:
    async with running_server(settings, ["api"], learn_every_s=EVERY_S) as server:
        json_of(await server.map(org="acme.io"), 201)
        async with within(20):
            while json_of(await server.mapping())["held_reason"] != "unsafe_id":
                await asyncio.sleep(0.05)
        assert refused(await server.mapping("nobody"), 404)
