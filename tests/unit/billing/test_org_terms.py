"""The orgs' records learn what Lago invoices by and what is charged, and which names are no subscriptions."""

from typing import Any

import msgspec

from connectors.billing.org_sync import OrgSynchroniser
from connectors.billing.plan_terms import PlanTermsCache, timezone_of
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.billing.subscription_history import org_with
from connectors.lago.responses import Charge, Customer, Plan, Subscription
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import parse_us, to_iso
from streams.core.mapping.subscription_choice import FOREIGN_SUBSCRIPTION, NO_SUBSCRIPTION, UNKNOWN_SUBSCRIPTION
from tests.support.books import Books, Records
from tests.support.virtual_time import run_virtually

BEGUN, NOW = (parse_us(f"2025-03-0{day}T12:00:00Z") for day in (1, 3))
LLM = Plan("llm", "USD", (Charge("ai_usage", "dynamic"), Charge("api_calls", "standard")), interval="yearly")
OLD = OrgRecord("org_1", plan="llm", periods=(Period("sub_1", BEGUN, None, "llm"),))
LEARNT = Period("sub_1", BEGUN, None, "llm", "yearly", None, "", ("ai_usage", "api_calls"))


def running(external_id: str = "sub_1", org_id: str = "org_1", **fields: Any) -> Subscription:
    of = {"plan_code": "llm", "external_customer_id": org_id, "status": "active", **fields}
    return Subscription(external_id, to_iso(BEGUN), **of)


class World:
    """A Lago with one plan, and the records."""

    def __init__(self, *records: OrgRecord, names: str = "") -> None:
        version = MappingVersion(0, "org_1", "t", external_subscription_id=names)
        customers = {"c": CustomerRecord("c", (version,), 0, 0)} if names else {}
        self.lago, self.records = Books(catalogue={"llm": LLM}), Records(*records)
        self.lago.listed["org_1"] = [running()]
        self.truth = OrgSynchroniser(customers, self.records.all, self.records, self.lago, now_us=lambda: NOW)
        self.discovery = SubscriptionDiscovery(customers, self.records.all, self.records, self.lago, now_us=lambda: NOW)

    @property
    def org(self) -> OrgRecord:
        return self.records.all["org_1"]


def test_a_record_of_an_older_release_is_completed_by_the_poll_and_then_left_alone() -> None:
    world = World(OLD)
    assert [run_virtually(world.truth.poll()) for _ in range(2)] == [1, 0]
    assert world.org.periods == (LEARNT,)


def test_a_plan_that_charges_another_thing_is_noticed_by_the_next_poll() -> None:
    world = World(OLD)
    run_virtually(world.truth.poll())
    world.lago.catalogue["llm"] = msgspec.structs.replace(LLM, charges=())
    assert run_virtually(world.truth.poll()) == 1
    assert world.org.periods[0].charged == ()


async def test_charges_that_are_invoiced_monthly_and_an_anniversary_are_learnt() -> None:
    world = World()
    world.lago.catalogue["llm"] = msgspec.structs.replace(LLM, bill_charges_monthly=True)
    world.lago.customers["org_1"] = Customer("org_1", applicable_timezone="Europe/Paris")
    world.lago.listed["org_1"] = [running(billing_time="anniversary", subscription_at="2025-02-28T09:00:00Z")]
    assert await world.discovery.learn("org_1")
    [period] = world.org.periods
    assert (period.interval, period.anchor, period.timezone) == (
        *("monthly", parse_us("2025-02-28T09:00:00Z"), "Europe/Paris"),
    )


def test_what_is_learnt_stays_where_a_later_answer_tells_less() -> None:
    """The answer to a change of plan names no terms; a plan may be deleted under its subscriptions."""
    known = OrgRecord("org_1", plan="llm", periods=(LEARNT,))
    assert org_with(known, None, [Period("sub_1", BEGUN, None, "llm")], NOW) is known


def test_a_timezone_that_is_no_place_counts_as_utc() -> None:
    assert timezone_of(Customer("c", timezone="Mars/Olympus")) == timezone_of(Customer("c", timezone="UTC")) == ""
    assert timezone_of(None) == timezone_of(Customer("c")) == ""


async def test_a_plan_is_asked_for_once_a_minute() -> None:
    asked: list[str] = []
    clock = [0.0]

    class Counted(Books):
        async def plan(self, code: str) -> Plan | None:
            asked.append(code)
            return LLM

    book = PlanTermsCache(Counted(), lambda: clock[0])
    for moment in (0, 59, 61):
        clock[0] = moment
        await book.periods([running(), running("sub_2")], None)
    assert asked == ["llm", "llm"]


async def test_a_name_is_the_orgs_another_customers_waiting_or_no_ones() -> None:
    world = World()
    ended = running("over", terminated_at=to_iso(NOW - 1_000_000), status="terminated")
    world.lago.listed["org_1"] += [Subscription("waits", plan_code="llm", status="pending"), ended]
    world.lago.listed["org_2"] = [running("theirs", "org_2")]
    assert await world.discovery.learn("org_1", ["sub_1", "waits", "over", "theirs", "typo"])
    assert world.org.unusable == {
        "waits": NO_SUBSCRIPTION,
        "theirs": FOREIGN_SUBSCRIPTION,
        "typo": UNKNOWN_SUBSCRIPTION,
    }
    assert {one.external_id for one in world.org.periods} == {"sub_1", "over"}


async def test_what_was_mapped_while_lago_was_away_is_asked_about_later_and_once() -> None:
    world = World(OLD, names="typo")
    world.lago.away = {"org_1"}
    await world.discovery.discover_all()
    assert world.org.unusable == {}
    world.lago.away = set()
    await world.discovery.discover_all()
    assert world.org.unusable == {"typo": UNKNOWN_SUBSCRIPTION}
    asked = len(world.lago.asked)
    await world.discovery.discover_all()
    assert len(world.lago.asked) == asked


async def test_while_lago_is_away_a_name_that_runs_as_another_orgs_is_not_taken_at_its_word() -> None:
    """Its usage would be posted to that one's subscription as soon as Lago is back, and maybe before Lago is asked."""
    over = Period("over", BEGUN, NOW - 1, "llm")
    world = World(OLD, OrgRecord("org_2", periods=(Period("theirs", BEGUN), Period("sub_1", BEGUN - 1), over)))
    world.lago.away = {"org_1"}
    assert await world.discovery.learn("org_1", ["theirs", "over", "sub_1", "typo"]) is False
    assert world.org.unusable == {"theirs": FOREIGN_SUBSCRIPTION}
    assert world.org.periods == OLD.periods
    world.lago.away = set()
    world.lago.listed["org_1"] = [running(), running("theirs")]
    assert await world.truth.poll() == 2
    assert world.org.unusable == {}, "Lago has the last word"


def test_a_name_that_comes_to_be_is_a_subscription_from_then_on() -> None:
    marked = msgspec.structs.replace(OLD, unusable={"sub_2": UNKNOWN_SUBSCRIPTION, "typo": UNKNOWN_SUBSCRIPTION})
    found = [Period("sub_1", BEGUN, None, "llm"), Period("sub_2", NOW, None, "llm")]
    assert org_with(marked, None, found, NOW).unusable == {"typo": UNKNOWN_SUBSCRIPTION}
