"""Every writer of an org's record writes what Lago says: each period with its terms, each end at its time.

A period without terms reads as one that charges everything and is never invoiced, so usage that waits would go to it at
once, wherever Lago looks. An end that is too late lets usage go to a subscription that is over.
"""

import ast
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_accounts import OrgAccounts, OrgRequest
from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_sync import OrgSynchroniser
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.billing.subscription_id_store import InMemoryIds
from connectors.lago.requests import NewSubscription
from connectors.lago.responses import Charge, Customer, Plan, Subscription
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import SECOND_US, parse_us, to_iso
from streams.core.delivery.after_end import Gap, gaps
from tests.support.books import Books, Records

CONNECTORS = Path(__file__).parents[3] / "connectors"
BEGUN, ENDED, NOW = (parse_us(f"2025-03-0{day}T12:00:00Z") for day in (1, 2, 3))
AGAIN = NOW - 60 * SECOND_US
PLANS = {
    "usage": Plan("usage", "USD", (Charge("ai_usage", "dynamic"),), interval="monthly"),
    "seats": Plan("seats", "USD", (), interval="monthly"),
}
TERMS = {"usage": ("monthly", ("ai_usage",)), "seats": ("monthly", ())}
RUNS = OrgRecord(
    "org_1", plan="usage", periods=(Period("sub_1", BEGUN, None, "usage", "monthly", charged=("ai_usage",)),)
)


def life(external_id: str, began: int, plan: str, ended: int | None = None) -> Subscription:
    status, end = ("active", None) if ended is None else ("terminated", to_iso(ended))
    return Subscription(external_id, to_iso(began), plan, end, external_customer_id="org_1", status=status)


class Lago(Books):
    """A created subscription runs at once, from `subscription_at` on, and ends a running one with the same id."""

    async def create_subscription(self, wanted: NewSubscription) -> Subscription:
        lives = self.listed.setdefault("org_1", [])
        for number, one in enumerate(lives):
            if one.external_id == wanted.external_id and one.status == "active":
                lives[number] = life(one.external_id, parse_us(one.started_at or ""), one.plan_code or "", AGAIN)
        began = parse_us(wanted.subscription_at) if wanted.subscription_at else AGAIN
        lives.append(life(wanted.external_id, began, wanted.plan_code))
        return lives[-1]

    async def terminate_subscription(self, external_id: str, *, pending: bool = False) -> Subscription | None:
        lives = self.listed["org_1"]
        [number] = [n for n, one in enumerate(lives) if one.external_id == external_id and one.status == "active"]
        one = lives[number]
        lives[number] = life(external_id, parse_us(one.started_at or ""), one.plan_code or "", ENDED)
        return lives[number]


class World:
    """Every writer, with one Lago and one record."""

    def __init__(self, *records: OrgRecord) -> None:
        self.lago, self.records = Lago(catalogue=dict(PLANS)), Records(*records)
        self.lago.payers["org_1"] = Customer("org_1", name="Acme", currency="USD")
        billing = OrgBilling(cast(Any, self.lago), InMemoryIds(), InMemoryUsage(), now_us=lambda: NOW)
        version = MappingVersion(0, "org_1", "t", "seats")
        customers = {"c": CustomerRecord("c", (version,), 0, 0)}
        whose = customers, self.records.all, self.records, self.lago
        self.truth = OrgSynchroniser(*whose, now_us=lambda: NOW)
        self.discovery = SubscriptionDiscovery(*whose, now_us=lambda: NOW)
        self.accounts = OrgAccounts(billing, self.records, lambda: NOW)

    @property
    def org(self) -> OrgRecord:
        return self.records.all["org_1"]

    async def set_up(self, plan: str, since: str | None = None) -> None:
        await self.accounts.set_up(OrgRequest("org_1", plan_code=plan, subscription_at=since), silently)

    async def changed(self, plan: str) -> None:
        await self.accounts.change_plan("org_1", plan, silently)

    async def ended(self) -> None:
        await self.accounts.end("org_1", silently)


async def silently(_before: Any, _after: Any) -> None:
    """Notifies no listener."""


async def _another_runs(world: World) -> None:
    world.lago.listed["org_1"].append(life("sub_2", BEGUN, "seats"))
    await world.ended()


async def _learnt(world: World, ask: Callable[[], Awaitable[object]]) -> None:
    world.lago.listed["org_1"] = [life("sub_1", BEGUN, "seats")]
    await ask()


#: Each way to write a record: whether the org has a subscription before, and what is done.
WRITERS: dict[str, tuple[bool, Callable[[World], Awaitable[object]]]] = {
    "set up": (False, lambda world: world.set_up("usage")),
    "set up from the past": (False, lambda world: world.set_up("usage", "2025-02-05T00:00:00Z")),
    "set up on a plan that does not charge": (False, lambda world: world.set_up("seats")),
    "set up again": (True, lambda world: world.set_up("usage")),
    "changed to a plan that does not charge": (True, lambda world: world.changed("seats")),
    "ended, another runs": (True, _another_runs),
    "learner": (False, lambda world: _learnt(world, lambda: world.discovery.learn("org_1"))),
    "webhook": (False, lambda world: _learnt(world, lambda: world.truth.refresh("org_1"))),
}


@pytest.mark.parametrize("way", WRITERS)
async def test_no_period_is_written_without_the_terms_of_a_plan_that_lago_has(way: str) -> None:
    runs, write = WRITERS[way]
    world = World(*([RUNS] if runs else []))
    if runs:
        world.lago.listed["org_1"] = [life("sub_1", BEGUN, "usage")]
    await write(world)
    running = [one for one in world.org.periods if one.terminated_at is None]
    assert running, "it was written"
    for one in world.org.periods:
        assert (one.interval, one.charged) == TERMS[one.plan_code], one


async def test_a_plan_that_lago_did_not_have_a_moment_ago_is_requested_again() -> None:
    world = World()
    del world.lago.catalogue["seats"]
    world.lago.absent = {"seats"}
    world.lago.listed["org_1"] = [life("sub_1", BEGUN, "seats")]
    await world.discovery.learn("org_1")
    assert world.org.periods[0].charged is None
    world.lago.absent = set()
    world.lago.catalogue["seats"] = PLANS["seats"]
    await world.discovery.learn("org_1")
    assert world.org.periods[0].charged == ()


#: Each way to learn that sub_1 is over, when another subscription, or another life of it, was made meanwhile.
LEARNERS: dict[str, Callable[[World], Awaitable[object]]] = {
    "a mapping names the other": lambda world: world.discovery.learn("org_1", ["sub_2"]),
    "learner": lambda world: world.discovery.learn("org_1"),
    "set up": lambda world: world.set_up("usage"),
    "changed": lambda world: world.changed("usage"),
    "webhook": lambda world: world.truth.refresh("org_1"),
}


@pytest.mark.parametrize("other", ["sub_1", "sub_2"])
@pytest.mark.parametrize("way", LEARNERS)
async def test_the_end_of_a_subscription_is_always_lagos_time(way: str, other: str) -> None:
    """
    sub_1  ----------|                        other  |------
                          usage goes astray   learnt   ^
    """
    world = World(RUNS)
    world.lago.listed["org_1"] = [life(other, AGAIN, "usage"), life("sub_1", BEGUN, "usage", ENDED)]
    await LEARNERS[way](world)
    assert next(one for one in world.org.periods if one.started_at == BEGUN).terminated_at == ENDED
    [gap] = [one for one in gaps(world.org.periods, 0) if one.subscription == "sub_1"]
    assert gap.begins_us == ENDED + SECOND_US
    assert other == "sub_2" or gap == Gap("sub_1", ENDED + SECOND_US, AGAIN)


async def test_discovery_lists_ended_subscriptions_only_if_one_has_ended() -> None:
    """Otherwise each look at an org would need two requests."""
    world = World(RUNS)
    world.lago.listed["org_1"] = [life("sub_1", BEGUN, "usage")]
    await world.discovery.learn("org_1")
    assert world.lago.asked == ["org_1"]


def test_subscriptions_become_periods_in_one_function() -> None:
    """This function adds the terms; no other module creates a period from Lago's list or without it."""
    makers: dict[str, set[str]] = {}
    for path in CONNECTORS.rglob("*.py"):
        called = {
            node.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id == "period_of"
        } | {
            "Period"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Period"
        }
        if called:
            makers[path.relative_to(CONNECTORS).as_posix()] = called
    assert makers.pop("operations/rate_test.py") == {"Period"}, "reads the rows of what was made before"
    assert makers == {"lago/responses.py": {"Period"}, "billing/plan_terms.py": {"period_of"}}
