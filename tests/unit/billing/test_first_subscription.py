"""Creating an org's first subscription never changes a subscription that another process has created meanwhile."""

from typing import Any, cast

import pytest

from connectors.billing.auto_subscribe import AutoSubscriber
from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_accounts import OrgAccounts, OrgRequest
from connectors.billing.org_billing import OrgBilling
from connectors.billing.subscription_id_store import InMemoryIds
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import Subscription
from schemas.customers import OrgRecord
from schemas.moments import parse_us
from tests.support.books import Books, Records

NOW = parse_us("2025-03-03T12:00:00Z")


class World:
    """A Lago in which another process subscribes org_1 as soon as it is a customer."""

    def __init__(self, *theirs: Subscription) -> None:
        self.lago, self.ids, self.records = Books(), InMemoryIds(), Records()
        self.billing = OrgBilling(cast(Any, self.lago), self.ids, InMemoryUsage(), now_us=lambda: NOW)
        self.lago.meanwhile["save_customer"] = lambda: self.lago.listed.update(org_1=list(theirs))

    async def set_up(self, plan: str) -> None:
        async def silently(_before: Any, _after: Any) -> None:
            """Notifies no listener."""

        wanted = OrgRequest("org_1", plan_code=plan)
        await OrgAccounts(self.billing, self.records, lambda: NOW).set_up(wanted, silently)

    async def subscribe_by_itself(self, plan: str) -> None:
        await AutoSubscriber(cast(Any, self.lago), self.billing).subscribe(OrgRecord("org_1"), plan)

    def posted(self) -> list[tuple[str, str]]:
        return [(one.external_id, one.plan_code) for one in self.lago.posted]


def foreign_subscription(plan: str, status: str = "active") -> Subscription:
    begun = "2025-03-03T11:59:59Z" if status == "active" else None
    return Subscription("sub_1", begun, plan, external_customer_id="org_1", status=status)


@pytest.mark.parametrize("status", ["active", "pending"])
async def test_automatic_setup_keeps_a_plan_that_was_chosen_meanwhile(status: str) -> None:
    world = World(foreign_subscription("professional", status))
    await world.subscribe_by_itself("starter")
    assert (world.posted(), world.ids.all) == ([], {})


@pytest.mark.parametrize("status", ["active", "pending"])
async def test_a_setup_that_finds_another_plan_in_the_end_is_refused(status: str) -> None:
    world = World(foreign_subscription("professional", status))
    with pytest.raises(LagoRejected, match="other_plan"):
        await world.set_up("starter")
    assert (world.posted(), world.ids.all) == ([], {})


async def test_a_plan_change_at_the_end_of_the_period_is_not_undone() -> None:
    """Until then Lago reports the running plan's own code."""
    world = World(foreign_subscription("professional"), foreign_subscription("starter", "pending"))
    await world.subscribe_by_itself("professional")
    assert world.posted() == []


async def test_a_setup_with_the_same_plan_returns_the_existing_subscription() -> None:
    for ask in (World.set_up, World.subscribe_by_itself):
        world = World(foreign_subscription("starter"))
        await ask(world, "starter")
        assert (world.posted(), world.ids.all) == ([("sub_1", "starter")], {"org_1": "sub_1"})


async def test_without_a_running_subscription_one_is_created() -> None:
    for ask in (World.set_up, World.subscribe_by_itself):
        world = World()
        await ask(world, "starter")
        [(external_id, plan)] = world.posted()
        assert (external_id, plan) == (world.ids.all["org_1"], "starter")


async def test_any_other_refusal_by_lago_is_reported() -> None:
    world = World(
        foreign_subscription("starter"), Subscription("sub_2", "2025-03-03T11:00:00Z", "starter", status="active")
    )
    with pytest.raises(LagoRejected, match="several_subscriptions"):
        await world.subscribe_by_itself("starter")


async def test_a_setup_that_asks_for_a_plan_change_makes_one() -> None:
    world = World()
    world.lago.listed["org_1"] = [foreign_subscription("starter")]
    await world.billing.subscribe("org_1", "professional", "anniversary", None)
    assert world.posted() == [("sub_1", "professional")]
