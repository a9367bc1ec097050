"""Usage gets onto an invoice of the subscription that charges it: our rules with the sandbox's clock.

The meter's rules, delivery and the orgs' records are the real ones; Kafka alone is left out.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import httpx
import msgspec
import pytest

from connectors.billing.org_sync import OrgSynchroniser
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.lago.client import LagoClient
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord
from schemas.ledger import Position
from schemas.moments import SECOND_US
from schemas.money import plain
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.restamp import RestampDecision, restamp_decision
from streams.core.mapping.resolve import Resolver
from streams.core.metering.close_window import due_windows, release, seal
from streams.core.metering.fold import Fold
from streams.core.metering.ledger_state import LedgerState
from streams.core.metering.step_changes import apply
from tests.support.calls import raw, slp
from tests.support.posting import quick_delivery
from tests.support.sandbox import KEY, Clock, Lago, lago_sandbox

CODE = "ai_usage"
DAY = 86_400.0


def moment(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[misc]


class Records(dict[str, OrgRecord]):
    """The orgs' records, in memory."""

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        self[org_id] = make(self.get(org_id) or OrgRecord(org_id))
        return self[org_id]


@dataclass
class World:
    """The meter and the sink of one partition, with a sandbox, on one clock."""

    clock: Clock
    lago: Lago
    http: httpx.AsyncClient
    policy: MeterPolicy = field(default_factory=MeterPolicy)
    customers: dict[str, CustomerRecord] = field(default_factory=dict)
    orgs: Records = field(default_factory=Records)
    ledger: LedgerState = field(default_factory=lambda: LedgerState(Position()))
    waiting: list[Item] = field(default_factory=list)
    calls: int = 0

    @property
    def now_us(self) -> int:
        return round(self.clock.now * SECOND_US)

    def map(self, customer: str = "acme", org_id: str = "org", subscription: str = "") -> None:
        version = MappingVersion(0, org_id, "t", external_subscription_id=subscription)
        self.customers[customer] = CustomerRecord(customer, (version,), 0, 0)

    async def learn(self, org_id: str = "org", *names: str) -> None:
        client = LagoClient(self.http, self.lago.url, KEY)
        self.orgs.setdefault(org_id, OrgRecord(org_id))
        await OrgSynchroniser({}, self.orgs, self.orgs, client, now_us=lambda: self.now_us).refresh(org_id)
        if names:
            discovery = SubscriptionDiscovery({}, self.orgs, self.orgs, client, now_us=lambda: self.now_us)
            assert await discovery.learn(org_id, names)

    def use(self, usd: str, at: float | None = None, customer: str = "acme") -> None:
        at_us = self.now_us if at is None else round(at * SECOND_US)
        call = raw(self.calls, slp(self.calls, at_us=at_us, cost=usd), customer=customer, received_us=self.now_us)
        self.calls += 1
        resolve = Resolver(self.customers, self.orgs, self.policy.out_of_period_policy, CODE)
        apply(self.ledger, Fold(self.policy, "p-")(self.ledger, [call], resolve), self.now_us)

    def punctuate(self) -> None:
        """Like `MeterWork.punctuate`, after open windows are due; twice, because usage that cannot be sealed is
        resolved again.
        """
        self.clock.now += 120
        for _ in range(2):
            apply(self.ledger, release(self.ledger, self.customers, self.orgs, self.policy, 99, self.now_us), 0)
            windows = due_windows(self.ledger, self.now_us, self.policy, 99)
            sealed = seal(self.ledger.position, windows, self.orgs, self.policy, "p-", 0, self.now_us)
            apply(self.ledger, sealed, self.now_us)
            events = [one.event for one in sealed.sealed]
            self.waiting += [Item(one.transaction_id, msgspec.json.encode(one), resent=False) for one in events]

    async def post(self) -> list[EventOutcome]:
        items, self.waiting = self.waiting, []
        return await quick_delivery(self.lago, self.http).deliver(items, judge=self.judge)

    def judge(self, value: bytes) -> RestampDecision:
        return restamp_decision(value, self.orgs, self.policy.out_of_period_policy, self.now_us, CODE)

    @property
    def held(self) -> list[tuple[str, str]]:
        return sorted((one.held, plain(one.cost)) for one in self.ledger.windows.values() if one.held)

    async def invoiced(self) -> dict[str, int]:
        """Cents on invoices, by month of issue and customer."""
        cents: dict[str, int] = {}
        for one in (await self.lago.get("/invoices", per_page=100)).json()["invoices"]:
            name = f"{one['issuing_date'][:7]} {one['customer']['external_id']}"
            cents[name] = cents.get(name, 0) + one["total_amount_cents"]
        return {name: sum_ for name, sum_ in cents.items() if sum_}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = Clock(moment(2026, 10, 1))
    async with lago_sandbox(clock=clock) as lago, httpx.AsyncClient(trust_env=False) as http:
        metric = await lago.metric(CODE)
        await lago.plan(charges=[{"billable_metric_id": metric, "charge_model": "dynamic", "properties": {}}])
        await lago.plan("dear", 100, charges=[{"billable_metric_id": metric, "charge_model": "dynamic"}])
        await lago.plan("seats")
        yield World(clock, lago, http)


async def test_usage_held_over_the_end_of_the_month_is_on_the_next_invoice(world: World) -> None:
    """
    October 1   28: $100, no one mapped     November 5: mapped      December 1
       |--------------u-----------------|-------------x----------------| $100
    """
    await world.lago.subscribe("sub", "org")
    world.clock.now = moment(2026, 10, 28, 12)
    world.use("100")
    world.clock.now = moment(2026, 11, 5)
    await world.learn()
    world.map()
    world.punctuate()
    [sent] = [msgspec.json.decode(one.value) for one in world.waiting]
    assert sent["timestamp"] == f"{moment(2026, 11, 1):.3f}"
    assert sent["properties"]["usage_end"] == "2026-10-28T12:00:00.000000Z"
    assert [one.kind for one in await world.post()] == ["delivered"]
    world.clock.now = moment(2026, 12, 2)
    assert await world.invoiced() == {"2026-12 org": 10_000}


async def test_with_the_policy_hold_it_waits_for_a_persons_decision(world: World) -> None:
    world.policy = replace(world.policy, out_of_period_policy=OutOfPeriodPolicy.HOLD)
    await world.lago.subscribe("sub", "org")
    world.clock.now = moment(2026, 10, 28, 12)
    world.use("100")
    world.clock.now = moment(2026, 11, 5)
    await world.learn()
    world.map()
    world.punctuate()
    assert (world.waiting, world.held) == ([], [("late_period", "100")])
    world.policy = replace(world.policy, out_of_period_policy=OutOfPeriodPolicy.SHIFT)
    world.punctuate()
    await world.post()
    world.clock.now = moment(2026, 12, 2)
    assert await world.invoiced() == {"2026-12 org": 10_000}


async def test_an_outage_over_the_end_of_the_month_loses_nothing(world: World) -> None:
    """The usage was sealed in October and posted in November."""
    await world.lago.subscribe("sub", "org")
    await world.learn()
    world.map()
    world.clock.now = moment(2026, 10, 31, 23)
    world.use("7")
    world.punctuate()
    world.clock.now = moment(2026, 11, 1, 0, 10)
    [outcome] = await world.post()
    assert (outcome.kind, outcome.timestamp) == ("delivered", f"{moment(2026, 11, 1):.3f}")
    assert (await world.lago.stats())["totals"]["billed_cents"] == "700"
    world.clock.now = moment(2026, 12, 2)
    assert await world.invoiced() == {"2026-12 org": 700}


async def test_the_last_minute_of_a_month_is_sealed_in_the_next(world: World) -> None:
    await world.lago.subscribe("sub", "org")
    await world.learn()
    world.map()
    world.clock.now = moment(2026, 10, 31, 23, 59)
    world.use("1")
    world.punctuate()
    await world.post()
    world.clock.now = moment(2026, 12, 2)
    assert await world.invoiced() == {"2026-12 org": 100}


async def test_a_plan_change_ends_the_billing_period_at_once(world: World) -> None:
    """The external id stays: usage of the minute before belongs to the new plan."""
    await world.lago.subscribe("sub", "org")
    await world.learn()
    world.map()
    world.clock.now = moment(2026, 10, 10, 9)
    world.use("3", at=world.clock.now - 30)
    await world.lago.subscribe("sub", "org", plan="dear")
    await world.learn()
    world.punctuate()
    await world.post()
    assert (await world.lago.stats())["totals"]["billed_cents"] == "300"
    usage = await world.lago.usage("org", "sub")
    assert usage["charges_usage"][0]["amount_cents"] == 300


async def test_after_an_end_usage_goes_to_the_next_subscription(world: World) -> None:
    await world.lago.subscribe("first", "org")
    await world.learn()
    world.map()
    world.clock.now = moment(2026, 10, 10)
    world.use("3")
    await world.lago.http.delete("/api/v1/subscriptions/first")
    await world.learn()
    world.punctuate()
    assert (world.waiting, world.held) == ([], [("ended", "3")])
    world.clock.now = moment(2026, 10, 12)
    await world.lago.subscribe("second", "org")
    await world.learn()
    world.punctuate()
    await world.post()
    assert (await world.lago.stats())["subscriptions"]["second"]["billed_cents"] == "300"


async def test_an_event_that_arrives_after_its_subscriptions_end_is_a_dead_letter_with_the_reason(world: World) -> None:
    await world.lago.subscribe("sub", "org")
    await world.learn()
    world.map()
    world.use("3")
    world.punctuate()
    await world.lago.http.delete("/api/v1/subscriptions/sub")
    world.clock.now += 1
    await world.learn()
    assert [(one.kind, one.reason) for one in await world.post()] == [("dead", "ended")]


async def test_the_subscription_that_charges_the_metric_pays(world: World) -> None:
    await world.lago.subscribe("seats", "org", plan="seats")
    world.clock.now += 10
    await world.lago.subscribe("llm", "org")
    await world.learn()
    world.map()
    world.clock.now += DAY
    world.use("100")
    world.punctuate()
    await world.post()
    assert (await world.lago.stats())["subscriptions"]["llm"]["billed_cents"] == "10000"


async def test_usage_is_never_billed_in_the_currency_of_another_plan(world: World) -> None:
    """The customer is in dollars, and Lago would invoice our 10000 cents as 100 euros."""
    [metric] = (await world.lago.get("/billable_metrics")).json()["billable_metrics"]
    charge = {"billable_metric_id": metric["lago_id"], "charge_model": "dynamic", "properties": {}}
    await world.lago.plan("euro", amount_currency="EUR", charges=[charge])
    await world.lago.save("/customers", "customer", external_id="org", currency="USD")
    await world.lago.subscribe("europe", "org", plan="euro")
    await world.learn()
    world.map()
    world.use("100")
    world.punctuate()
    assert (world.waiting, world.held) == ([], [("currency", "100")])
    await world.lago.subscribe("llm", "org")
    await world.learn()
    world.punctuate()
    await world.post()
    assert (await world.lago.stats())["subscriptions"]["llm"]["billed_cents"] == "10000"


async def test_if_no_subscription_charges_the_metric_usage_is_held_until_one_does(world: World) -> None:
    await world.lago.subscribe("seats", "org", plan="seats")
    await world.learn()
    world.map()
    world.use("100")
    world.punctuate()
    assert (world.waiting, world.held) == ([], [("no_charge", "100")])
    await world.lago.subscribe("llm", "org")
    await world.learn()
    world.punctuate()
    await world.post()
    assert (await world.lago.stats())["totals"]["billed_cents"] == "10000"


async def test_of_two_that_charge_it_the_orgs_own_pays_or_a_person_decides(world: World) -> None:
    for name in ("a", "b"):
        await world.lago.subscribe(name, "org")
    await world.learn()
    world.map()
    world.clock.now += DAY
    world.use("100")
    world.punctuate()
    assert (world.waiting, world.held) == ([], [("ambiguous", "100")])
    world.orgs["org"] = msgspec.structs.replace(world.orgs["org"], subscription_id="b")
    world.punctuate()
    await world.post()
    assert (await world.lago.stats())["subscriptions"]["b"]["billed_cents"] == "10000"


@pytest.mark.parametrize(("name", "why"), [("typo", "unknown_subscription"), ("theirs", "foreign_subscription")])
async def test_a_named_subscription_of_another_org_holds_its_usage(world: World, name: str, why: str) -> None:
    await world.lago.subscribe("sub", "org")
    await world.lago.subscribe("theirs", "other")
    await world.learn("org", name)
    world.map(subscription=name)
    world.use("7")
    world.punctuate()
    assert (world.waiting, world.held) == ([], [(why, "7")])
    world.map(subscription="sub")
    world.punctuate()
    await world.post()
    assert (await world.lago.stats())["subscriptions"]["sub"]["billed_cents"] == "700"
