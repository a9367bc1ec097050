"""The orgs' records learn invoicing interval and charges from Lago, and which names are no subscriptions."""

from typing import Any

import msgspec

from connectors.billing.org_sync import OrgSynchroniser
from connectors.billing.plan_terms import PlanTermsCache, timezone_of
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.billing.subscription_history import org_with
from connectors.lago.responses import Charge, Customer, Plan, Subscription
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.moments import parse_us, to_iso
from streams.core.mapping.held_reasons import FOREIGN_SUBSCRIPTION, NO_SUBSCRIPTION, UNKNOWN_SUBSCRIPTION
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


def test_a_record_of_an_older_release_is_completed_by_a_poll_and_then_not_written_again() -> None:
    world = World(OLD)
    assert [run_virtually(world.truth.poll()) for _ in range(2)] == [1, 0]
    assert world.org.periods == (LEARNT,)


def test_a_poll_notices_a_plan_that_charges_another_metric() -> None:
    world = World(OLD)
    run_virtually(world.truth.poll())
    world.lago.catalogue["llm"] = msgspec.structs.replace(LLM, charges=())
    assert run_virtually(world.truth.poll()) == 1
    assert world.org.periods[0].charged == ()


def test_a_poll_notices_another_time_zone_which_decides_when_lago_invoices() -> None:
    """Nothing announces it if the time zone of the billing entity changes, and a webhook may be lost."""
    world = World(OLD)
    run_virtually(world.truth.poll())
    world.lago.payers["org_1"] = Customer("org_1", applicable_timezone="America/New_York")
    assert [run_virtually(world.truth.poll()) for _ in range(2)] == [1, 0]
    assert world.org.periods == (msgspec.structs.replace(LEARNT, timezone="America/New_York"),)
    world.lago.payers["org_1"] = Customer("org_1", applicable_timezone="UTC")
    assert [run_virtually(world.truth.poll()) for _ in range(2)] == [1, 0]
    assert world.org.periods == (LEARNT,)


def test_a_poll_notices_another_currency() -> None:
    world = World(OLD)
    world.lago.payers["org_1"] = Customer("org_1", currency="USD")
    run_virtually(world.truth.poll())
    world.lago.payers["org_1"] = Customer("org_1", currency="EUR")
    assert [run_virtually(world.truth.poll()) for _ in range(2)] == [1, 0]
    assert world.org.currency == "EUR"


def test_a_time_zone_without_known_terms_is_not_asked_for_again_and_again() -> None:
    world = World(OLD)
    world.lago.catalogue, world.lago.absent = {}, {"llm"}
    world.lago.payers["org_1"] = Customer("org_1", applicable_timezone="Europe/Paris", currency="USD")
    assert [run_virtually(world.truth.poll()) for _ in range(3)] == [1, 0, 0]


async def test_monthly_invoiced_charges_and_anniversary_billing_are_recorded() -> None:
    world = World()
    world.lago.catalogue["llm"] = msgspec.structs.replace(LLM, bill_charges_monthly=True)
    world.lago.payers["org_1"] = Customer("org_1", applicable_timezone="Europe/Paris")
    world.lago.listed["org_1"] = [running(billing_time="anniversary", subscription_at="2025-02-28T09:00:00Z")]
    assert await world.discovery.learn("org_1")
    [period] = world.org.periods
    assert (period.interval, period.anchor, period.timezone) == (
        *("monthly", parse_us("2025-02-28T09:00:00Z"), "Europe/Paris"),
    )


def test_recorded_terms_stay_if_a_later_answer_has_none() -> None:
    """The answer to a plan change has no terms; a plan may be deleted while it has subscriptions."""
    known = OrgRecord("org_1", plan="llm", periods=(LEARNT,))
    assert org_with(known, None, [Period("sub_1", BEGUN, None, "llm")], NOW) is known


def test_an_unknown_timezone_counts_as_utc() -> None:
    assert timezone_of(Customer("c", timezone="Mars/Olympus")) == timezone_of(Customer("c", timezone="UTC")) == ""
    assert timezone_of(None) == timezone_of(Customer("c")) == ""


async def test_a_plan_is_requested_once_a_minute() -> None:
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


async def test_a_subscription_name_belongs_to_the_org_to_another_customer_or_to_none_or_is_pending() -> None:
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


async def test_a_name_that_was_mapped_while_lago_was_unavailable_is_looked_up_later_and_once() -> None:
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


async def test_while_lago_is_unavailable_a_name_that_another_org_uses_is_not_accepted() -> None:
    """Its usage would be posted to the other org's subscription as soon as Lago answers again, maybe before Lago was
    asked.
    """
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


def test_a_name_that_is_created_later_is_a_subscription_from_then_on() -> None:
    marked = msgspec.structs.replace(OLD, unusable={"sub_2": UNKNOWN_SUBSCRIPTION, "typo": UNKNOWN_SUBSCRIPTION})
    found = [Period("sub_1", BEGUN, None, "llm"), Period("sub_2", NOW, None, "llm")]
    assert org_with(marked, None, found, NOW).unusable == {"typo": UNKNOWN_SUBSCRIPTION}
