"""The orgs' records follow Lago: an older answer never replaces a newer record, and an error about one org does not
affect the others.
"""

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_accounts import OrgAccounts, OrgRequest
from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_sync import OrgSynchroniser
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.billing.subscription_id_store import InMemoryIds
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import Customer, Subscription
from connectors.processes.management_api import org_synchroniser
from schemas.customers import OrgRecord, Period
from schemas.errors import MeterbridgeError, Unavailable
from schemas.moments import parse_us, to_iso
from tests.support.books import Books, Records
from tests.support.virtual_time import run_virtually

BEGUN, ENDED, NOW = (parse_us(f"2025-03-0{day}T12:00:00Z") for day in (1, 2, 3))
RUNNING = OrgRecord("org_1", plan="starter", periods=(Period("sub_1", BEGUN, None, "starter"),))
OVER = OrgRecord("org_1", plan="starter", periods=(Period("sub_1", BEGUN, ENDED, "starter"),))


def running(org_id: str, number: int = 1) -> Subscription:
    return Subscription(f"sub_{number}", to_iso(BEGUN), "starter", external_customer_id=org_id, status="active")


def ended(org_id: str, number: int = 1) -> Subscription:
    begun, over = to_iso(BEGUN), to_iso(ENDED)
    return Subscription(f"sub_{number}", begun, "starter", over, external_customer_id=org_id, status="terminated")


class World:
    """Refreshes the records from Lago's answers."""

    def __init__(self, *records: OrgRecord) -> None:
        self.lago, self.records = Books(), Records(*records)
        self.truth = OrgSynchroniser(
            *({}, self.records.all, self.records, self.lago),
            now_us=lambda: NOW,
            is_org=lambda org_id: org_id.startswith("org_"),
        )
        self.discovery = SubscriptionDiscovery({}, self.records.all, self.records, self.lago, now_us=lambda: NOW)
        lago = cast(Any, self.lago)
        billing = OrgBilling(lago, InMemoryIds(), InMemoryUsage(), now_us=lambda: NOW)
        self.accounts = OrgAccounts(billing, self.records, lambda: NOW)

    def runs(self, *orgs: str) -> None:
        for org_id in orgs:
            self.lago.payers[org_id] = Customer(org_id, name="Acme", currency="USD")
            self.lago.listed[org_id] = [running(org_id)]

    async def set_up(self) -> object:
        return await self.accounts.set_up(OrgRequest("org_1"), _silently)


async def _silently(_before: Any, _after: Any) -> None:
    """Notifies no listener."""


async def _unchanged(org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
    """The topic of an org without a record, where an unchanged record is not written."""
    assert make(OrgRecord(org_id)) == OrgRecord(org_id)
    return OrgRecord(org_id)


#: What asks Lago, and the last thing it asks for before it writes.
WAYS: dict[str, tuple[Callable[[World], Awaitable[object]], str]] = {
    "webhook": (lambda world: world.truth.refresh("org_1"), "subscriptions and ended"),
    "learner": (lambda world: world.discovery.learn("org_1"), "subscriptions"),
    "account": (lambda world: world.set_up(), "subscriptions and ended"),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_newer_record_of_another_process_is_not_replaced_by_an_older_answer(way: str) -> None:
    """
    this process   asks, reads "runs" ...................... writes, and the subscription would run again
    another                      it ends, is noted as ended
    """
    ask, last = WAYS[way]
    world = World(RUNNING)
    world.runs("org_1")

    def ends() -> None:
        del world.lago.meanwhile[last]
        world.lago.listed["org_1"] = [ended("org_1")]
        world.records.all["org_1"] = OVER

    world.lago.meanwhile[last] = ends
    await ask(world)
    assert world.lago.meanwhile == {}, "the race was run"
    assert [one.terminated_at for one in world.records.all["org_1"].periods] == [ENDED]


@pytest.mark.parametrize("way", WAYS)
async def test_a_record_that_other_processes_keep_changing_is_left_and_the_conflict_is_logged(way: str) -> None:
    ask, last = WAYS[way]
    world, turns = World(RUNNING), iter(range(1, 100))
    world.runs("org_1")

    def others() -> None:
        world.records.all["org_1"] = OrgRecord("org_1", plan="starter", periods=OVER.periods, updated_at=next(turns))

    world.lago.meanwhile[last] = others
    if way == "learner":  # the next look is a quarter of a minute away
        assert await ask(world)
    else:
        with pytest.raises(Unavailable, match="write_conflict"):
            await ask(world)
    assert world.records.all["org_1"].periods == OVER.periods
    assert next(turns) == 4, "three rounds"


async def test_an_end_that_was_never_recorded_is_recorded_at_the_next_request_for_it() -> None:
    """The process that ended the subscription died before it wrote the record: usage would go to a subscription that
    bills nothing.
    """
    world = World(RUNNING)
    world.lago.payers["org_1"] = Customer("org_1", name="Acme", currency="USD")
    world.lago.listed["org_1"] = [ended("org_1"), ended("org_1", 7)]
    for _ in range(2):
        with pytest.raises(LagoRejected, match="no_subscription"):
            await world.accounts.end("org_1", _silently)
        ends = {one.external_id: one.terminated_at for one in world.records.all["org_1"].periods}
        assert ends == {"sub_1": ENDED, "sub_7": ENDED}


def poll(world: World) -> int:
    return run_virtually(world.truth.poll())


def test_a_poll_continues_after_an_org_that_lago_cannot_answer_for() -> None:
    orgs = [f"org_{number}" for number in range(9)]
    world = World(*(OrgRecord(org_id) for org_id in orgs))
    world.runs(*orgs)
    world.lago.away = {"org_0", "org_1", "org_3", "org_4", "org_8"}
    assert poll(world) == 4
    assert {org_id for org_id, record in world.records.all.items() if record.periods} == set(orgs) - world.lago.away
    world.lago.away = set()
    assert [poll(world), poll(world)] == [5, 0]


def test_a_poll_stops_if_lago_answers_for_none_of_three_orgs() -> None:
    orgs = [f"org_{number}" for number in range(9)]
    world = World(*(OrgRecord(org_id) for org_id in orgs))
    world.runs(*orgs)
    world.lago.away = set(orgs)
    with pytest.raises(MeterbridgeError, match="http_503"):
        poll(world)
    assert world.lago.asked == ["", *orgs[:3]]


def test_three_orgs_that_lago_never_answers_for_do_not_block_the_others() -> None:
    orgs = [f"org_{number}" for number in range(9)]
    world = World(*(OrgRecord(org_id) for org_id in orgs))
    world.runs(*orgs)
    world.lago.away = set(orgs[:3])
    for known in ([], orgs[3:]):
        with pytest.raises(MeterbridgeError, match="http_503"):
            poll(world)
        assert [org_id for org_id in orgs if world.records.all[org_id].periods] == known


async def test_discovery_continues_after_an_org_that_lago_cannot_answer_for(capfd: pytest.CaptureFixture[str]) -> None:
    orgs = [f"org_{number}" for number in range(9)]
    world = World(*(OrgRecord(org_id, subscription_id="sub_1") for org_id in orgs))
    world.runs(*orgs)
    world.lago.away = {"org_0", "org_1", "org_3"}
    for _ in range(3):
        await world.discovery.discover_all()
    assert {org_id for org_id in orgs if not world.discovery.knows(org_id)} == world.lago.away
    said = [line for line in capfd.readouterr().out.splitlines() if "subscriptions_unknown" in line]
    assert len(said) <= len(world.lago.away), "once an org, not every quarter of a minute"


async def test_discovery_stops_if_lago_answers_for_none_of_three_orgs() -> None:
    orgs = [f"org_{number}" for number in range(9)]
    world = World(*(OrgRecord(org_id, subscription_id="sub_1") for org_id in orgs))
    world.lago.away = set(orgs)
    await world.discovery.discover_all()
    assert world.lago.asked == orgs[:3]


async def test_the_next_discovery_starts_with_the_orgs_that_were_not_reached() -> None:
    orgs = [f"org_{number}" for number in range(9)]
    world = World(*(OrgRecord(org_id, subscription_id="sub_1") for org_id in orgs))
    world.runs(*orgs)
    world.lago.away = set(orgs[:3])
    await world.discovery.discover_all()
    await world.discovery.discover_all()
    assert {org_id for org_id in orgs if world.discovery.knows(org_id)} == set(orgs[3:])
    world.lago.away = set()
    await world.discovery.discover_all()
    assert all(world.discovery.knows(org_id) for org_id in orgs)


async def test_of_orgs_known_only_by_usage_the_most_recent_are_looked_up() -> None:
    world = World()
    for number in (*range(201), 1, *range(201, 249)):
        world.discovery.named(f"org_{number:03}")
    await world.discovery.discover_all()
    latest = {1, *range(50, 249)}  # of the first 50 only the one that was used again
    assert world.lago.asked == [f"org_{number:03}" for number in sorted(latest)]


async def test_a_subscription_of_an_org_known_only_by_usage_is_recorded() -> None:
    world = World()
    world.runs("org_9", "stranger")
    assert await world.truth.refresh("org_9")
    assert not await world.truth.refresh("stranger")
    assert list(world.records.all) == ["org_9"]
    assert len(world.records.all["org_9"].periods) == 1


async def test_an_org_id_that_lago_does_not_know_gets_no_record() -> None:
    world = World()
    world.records.change = _unchanged  # type: ignore[method-assign]
    assert not await world.truth.refresh("org_9")
    assert (world.lago.asked, world.records.all) == (["org_9"], {})


async def test_orgs_are_recognised_by_the_configured_prefixes() -> None:
    world = World()
    world.runs("acme-1", "org_1")
    settings = SimpleNamespace(org_id_prefixes=["acme-", "globex-"])
    views = {"customers": SimpleNamespace(table={}), "orgs": SimpleNamespace(table=world.records.all)}
    organizations = SimpleNamespace(is_in=lambda _organization, _org_id: True)
    ledger = SimpleNamespace(**views, org_records=world.records, lagos={"": world.lago}, organizations=organizations)
    synchroniser = org_synchroniser(*cast(Any, (settings, ledger)))
    assert await synchroniser.refresh("acme-1")
    assert not await synchroniser.refresh("org_1")
