"""Whether an org may be served: its subscription and its limits, with the sandbox."""

from collections.abc import AsyncIterator

import pytest

from connectors.billing.usage_limits import StaticLimits
from connectors.library import orgs
from connectors.library.orgs import LagoIntegrationError
from tests.support.orgs_world import World, orgs_world
from tests.support.sandbox import event

ACME = ("org_1", "Acme", "a@acme.io", "user_1")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with orgs_world() as there:
        yield there


async def test_an_org_may_be_served_if_it_has_an_active_subscription(world: World) -> None:
    assert await orgs.check_org_has_active_subscription("org_1") is False
    await orgs.create_subscription("org_1", "starter", subscription_at="2025-04-01")
    assert await orgs.check_org_has_active_subscription("org_1") is False
    await orgs.create_subscription("org_2", "starter")
    assert await orgs.check_org_has_active_subscription("org_2") is True
    await orgs.terminate_subscription("org_2")
    assert await orgs.check_org_has_active_subscription("org_2") is False


async def test_an_orgs_limits_are_its_plans_and_its_own_compared_with_lagos_counts(world: World) -> None:
    metric = await world.lago.metric("ai_usage")
    await world.lago.plan("ai_basic", charges=[{"billable_metric_id": metric, "charge_model": "dynamic"}])
    limits = StaticLimits({"ai_basic": {"tokens": 1000, "requests": 5}}, {"org_1": {"tokens": 900}})
    orgs.serve_with(world.process(), limits)
    created = await orgs.create_subscription("org_1", "ai_basic")
    assert await orgs.get_org_plan_limits("org_1") == {"tokens": 900, "requests": 5}
    sent = event(external_subscription_id=created.external_id, code="ai_usage", properties={"unit": "899"})
    await world.lago.post(sent)
    found = {one.limit: (one.used, one.most) for one in await orgs.enforce_usage_limits("org_1")}
    assert found == {"tokens": (899, 900), "requests": (None, 5)}
    await world.lago.post(sent | {"transaction_id": "t2", "properties": {"unit": "1"}})
    orgs.serve_with(world.process(), limits)
    with pytest.raises(orgs.LimitReached) as caught:
        await orgs.enforce_usage_limits("org_1")
    assert (caught.value.limit, caught.value.used, caught.value.most) == ("tokens", 900, 900)
    with pytest.raises(LagoIntegrationError, match="no_active_subscription"):
        await orgs.enforce_usage_limits("org_2")


async def test_without_limits_the_functions_raise_no_limits(world: World) -> None:
    for function in (orgs.get_org_plan_limits, orgs.enforce_usage_limits):
        with pytest.raises(LagoIntegrationError, match="no_limits"):
            await function("org_1")
