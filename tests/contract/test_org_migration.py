"""The migration from users to orgs on the sandbox: after a kill at any step and a second run there is one of each, and
usage follows.
"""

from collections.abc import AsyncIterator, Sequence

import pytest

from connectors.operations.org_migration import MISSING, WOULD, MigrationOutcome, plan_of
from connectors.operations.usage_in_flight import UsageInFlight
from connectors.operations.user_orgs import UserOrg
from schemas.errors import Unavailable
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.set_mapping import MappingRequest
from tests.support.migration_world import ACME, LEAD_US, SENT, SETTLED_US, Overtaken, Refusing, World
from tests.support.mortal_wire import Killed, MortalWire
from tests.support.sandbox import Clock, lago_sandbox


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = Clock()
    async with lago_sandbox(clock=clock) as lago:
        for code, cents in (("starter", 1900), ("professional", 4900)):
            await lago.plan(code, cents)
        world = World(lago, clock)
        yield world
        for wire in world.wires:
            await wire.aclose()


async def test_a_dry_run_prints_the_steps_and_changes_nothing(world: World) -> None:
    await world.user("user_1", "starter", "alice", "bob")
    before = (await world.everything(), dict(world.stored.customers))
    outcome = await world.process().look(ACME, otherwise=WOULD)
    assert outcome == MigrationOutcome(
        "user_1",
        "org_1",
        "would",
        steps=(
            "create the customer org_1",
            "note user_1 in its metadata",
            "subscribe it to starter",
            "map alice to org_1 as soon as possible",
            "map bob to org_1 as soon as possible",
        ),
        to_end=outcome.to_end,
    )
    assert [(old.external_id, old.wait) for old in outcome.to_end] == [("of user_1", "a mapping names them")]
    assert (await world.everything(), world.stored.customers) == before
    assert (world.stored.audit, {verb for verb, _ in world.wires[-1].requests}) == ([], {"GET"})


async def test_the_org_takes_over_and_usage_follows_from_that_time_on(world: World) -> None:
    await world.user("user_1", "starter", "alice")
    outcome = await world.process().run(ACME)
    assert (outcome.state, outcome.reason) == ("migrated", "")
    assert await world.everything() == (
        ["org_1", "user_1"],
        [("org_1", "starter", "active"), ("user_1", "starter", "active")],
    )
    own = world.stored.ids.all["org_1"]
    assert outcome.subscription == own
    moves = world.stored.customers["alice"].versions[-1].effective_from
    assert moves >= world.now_us() + LEAD_US
    assert world.payer("alice", moves) == ("org_1", own)
    assert world.payer("alice", moves - 1)[0] == "user_1"
    assert world.stored.audit == [("user_1", outcome.steps)]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_plan_chosen_for_the_org_meanwhile_stays_its_plan(world: World, times: int) -> None:
    await world.user("user_1", "starter", "alice")
    outcome = await world.process(Overtaken(world.lago, "org_1", "professional", times)).run(ACME)
    assert outcome.state == "migrated"
    _, subscriptions = await world.everything()
    assert subscriptions == [("org_1", "professional", "active"), ("user_1", "starter", "active")]


async def test_a_second_run_has_nothing_to_do(world: World) -> None:
    await world.user("user_1", "starter", "alice")
    await world.process().run(ACME)
    for _ in range(2):
        again = await world.process().run(ACME)
        assert (again.state, again.steps) == ("already", ())
        assert {verb for verb, _ in world.wires[-1].requests} == {"GET"}
    assert (await world.process().look(ACME, otherwise=MISSING)).state == "already"
    assert len(world.stored.audit) == 1


async def test_after_a_kill_at_any_request_a_second_run_leaves_one_of_each(world: World) -> None:
    """The clock advances, so an id generated a second time would be different."""
    untouched = MortalWire()
    await world.user("user_0", "starter", "customer_0")
    await world.process(untouched).run(UserOrg("user_0", "org_0"))
    steps = len(untouched.requests)
    fates = [(step, sent) for step in range(1, steps + 1) for sent in SENT]
    for number, (step, sent) in enumerate(fates, start=1):
        entry = UserOrg(f"user_{number}", f"org_{number}", "Acme", "a@acme.io")
        await world.user(entry.user_id, "starter", f"customer_{number}")
        with pytest.raises(Killed):
            await world.process(MortalWire(step, sent=sent)).run(entry)
        world.clock.now += 60
        outcome = await world.process().run(entry)
        assert outcome.state in ("migrated", "already"), outcome
        assert outcome.subscription == world.stored.ids.all[entry.org_id]
        assert world.payer(f"customer_{number}", world.now_us() + HOUR_US)[0] == entry.org_id
    everybody = [f"{kind}_{number}" for kind in ("org", "user") for number in range(len(fates) + 1)]
    customers, subscriptions = await world.everything()
    assert customers == sorted(everybody)
    assert subscriptions == sorted((one, "starter", "active") for one in everybody)


async def test_after_a_kill_at_any_own_write_a_second_run_completes_the_migration(world: World) -> None:
    await world.user("user_0", "starter", "a_0", "b_0")
    await world.process().run(UserOrg("user_0", "org_0"))
    writes = world.stored.writes
    assert writes == 4
    for number in range(1, 2 * writes + 1):
        entry = UserOrg(f"user_{number}", f"org_{number}")
        await world.user(entry.user_id, "starter", f"a_{number}", f"b_{number}")
        with pytest.raises(Killed):
            await world.process(dies_at=number).run(entry)
        world.clock.now += 60
        assert (await world.process().run(entry)).state in ("migrated", "already")
        assert (await world.process().look(entry, otherwise=MISSING)).state == "already"
        for customer in (f"a_{number}", f"b_{number}"):
            assert world.payer(customer, world.now_us() + HOUR_US)[0] == entry.org_id
    _, subscriptions = await world.everything()
    assert len(subscriptions) == len(set(subscriptions)) == 2 * (2 * writes + 1)


async def test_a_check_lists_everything_that_is_missing(world: World) -> None:
    await world.user("user_1", "starter", "alice")
    await world.process().run(ACME)
    world.stored.map(MappingRequest("carol", "user_1", "tenant"), world.now_us() - HOUR_US)
    await world.lago.http.delete(f"/api/v1/subscriptions/{world.stored.ids.all['org_1']}")
    found = await world.process().look(ACME, otherwise=MISSING)
    assert (found.state, found.steps) == (
        "missing",
        ("subscribe it to starter", "map carol to org_1 as soon as possible"),
    )


async def test_the_users_subscription_ends_when_no_more_usage_can_reach_it_and_not_before(world: World) -> None:
    """
        mapped to the org      late usage may come              nothing is on its way
    ----------|-----------------------------------------|----------------|---------> runs
              |  goes on                                |  goes on       |  ended
    """
    await world.user("user_1", "starter", "alice")
    await world.process().run(ACME)
    moved = world.stored.customers["alice"].versions[-1].effective_from
    world.clock.now = (moved + SETTLED_US) / SECOND_US - 1
    early = await world.process().run(ACME)
    assert early.to_end[0].wait.startswith("late usage may come until")
    assert world.asked == 0
    world.clock.now += 1
    for loose in (
        UsageInFlight(open={"alice"}),
        UsageInFlight(open={"of user_1"}),
        UsageInFlight(dead={"alice"}),
        UsageInFlight(behind={"billing.lago.events"}),
    ):
        world.loose = loose
        waiting = await world.process().run(ACME)
        assert (waiting.state, waiting.to_end[0].wait != "") == ("already", True)
    assert len([one for one in (await world.everything())[1] if one[2] == "active"]) == 2
    world.loose = UsageInFlight(open={"dave"}, dead={"dave"})
    assert (await world.process().look(ACME, otherwise=MISSING)).steps == ("end the subscription of user_1 of user_1",)
    ended = await world.process().run(ACME)
    assert (ended.state, ended.steps) == ("migrated", ("end the subscription of user_1 of user_1",))
    assert (await world.everything())[1] == [("org_1", "starter", "active"), ("user_1", "starter", "terminated")]
    assert (await world.process().look(ACME, otherwise=MISSING)).state == "already"


async def test_usage_in_flight_is_checked_again_for_a_user_that_was_checked_too_early(world: World) -> None:
    """
    user_1 settled    asked       a call of bob is folded    user_2 settled
    ------|-------------|----------------|-------------------------|------------> one run of both
                        | not yet in it                            | would be ended with the call unbilled
    """
    await world.user("user_1", "starter", "alice")
    await world.user("user_2", "starter", "bob")
    users = [ACME, UserOrg("user_2", "org_2")]
    for entry in users:
        await world.process().run(entry)
        world.clock.now += 60
    moved = [world.stored.customers[name].versions[-1].effective_from for name in ("alice", "bob")]
    process = world.process()
    world.clock.now = (moved[0] + SETTLED_US) / SECOND_US
    assert (await process.run(users[0])).state == "migrated"
    first = world.asked
    world.clock.now = (moved[1] + SETTLED_US) / SECOND_US
    world.loose = UsageInFlight(open={"bob"})
    waiting = await process.run(users[1])
    assert (waiting.state, waiting.to_end[0].wait != "") == ("already", True)
    again = world.asked
    assert (await process.run(users[1])).state == "already"
    assert (first, again, world.asked) == (1, 2, 2), "once for all who were settled by then"


async def test_after_a_kill_while_the_users_subscription_ends_it_is_ended_once(world: World) -> None:
    for sent in SENT:
        entry = UserOrg(f"user_{sent}", f"org_{sent}")
        await world.user(entry.user_id, "starter", f"alice_{sent}")
        await world.process().run(entry)
        world.clock.now += (SETTLED_US + HOUR_US) / SECOND_US
        before = MortalWire()
        await world.process(before).look(entry, otherwise=WOULD)
        with pytest.raises(Killed):
            await world.process(MortalWire(len(before.requests) + 2, sent=sent)).run(entry)
        await world.process().run(entry)
        subscriptions = (await world.everything())[1]
        assert (entry.user_id, "starter", "terminated") in subscriptions
        assert (entry.org_id, "starter", "active") in subscriptions


async def test_a_customer_mapped_to_the_user_during_the_run_keeps_the_subscription_running(world: World) -> None:
    await world.user("user_1", "starter", "alice")
    await world.process().run(ACME)
    world.clock.now += (SETTLED_US + HOUR_US) / SECOND_US
    process = world.process()
    await process.look(UserOrg("user_2", "org_2"), otherwise=WOULD)
    await process.look(ACME, otherwise=WOULD)
    world.stored.map(MappingRequest("carol", "user_1", "tenant"), world.now_us() - HOUR_US)
    assert (await process.run(ACME)).to_end[0].wait == "a mapping names them"


async def test_a_mapping_just_changed_by_a_process_with_a_faster_clock_is_moved_too(world: World) -> None:
    await world.user("user_1", "starter", "alice")
    ahead_us = world.now_us() + 60 * SECOND_US
    world.stored.map(MappingRequest("alice", "user_1", "tenant", "professional"), ahead_us)
    assert (await world.process().run(ACME)).state == "migrated"
    assert world.payer("alice", ahead_us + LEAD_US + HOUR_US)[0] == "org_1"


async def test_if_no_mapping_names_the_user_a_person_decides_about_its_subscription(world: World) -> None:
    """Its usage arrives in an unknown way."""
    await world.user("user_1")
    outcome = await world.process().run(ACME)
    world.clock.now += 365 * 86_400
    outcome = await world.process().run(ACME)
    assert outcome.to_end[0].wait.startswith("no mapping names them")


async def test_usage_follows_no_earlier_than_the_orgs_subscription_starts(world: World) -> None:
    await world.user("user_1", "starter", "alice")
    await world.lago.subscribe("made by hand", "org_1", "professional", subscription_at="2025-04-01")
    outcome = await world.process().run(ACME)
    assert (outcome.state, outcome.subscription) == ("migrated", "made by hand")
    moves = world.stored.customers["alice"].versions[-1].effective_from
    assert outcome.steps[-1] == "map alice to org_1 from 2025-04-01T00:00:00.000000Z"
    assert (await world.process().look(ACME, otherwise=MISSING)).state == "already"
    assert world.payer("alice", moves - 1)[0] == "user_1"


async def test_announced_versions_move_with_their_own_start(world: World) -> None:
    await world.user("user_1", "starter", "alice")
    later = world.now_us() + 24 * HOUR_US
    for org, at in (("org_9", later), ("user_1", later + HOUR_US)):
        world.stored.map(MappingRequest("alice", org, "tenant", effective_from=at), world.now_us())
    assert (await world.process().run(ACME)).state == "migrated"
    paid = [world.payer("alice", at)[0] for at in (later - 1, later + HOUR_US - SECOND_US, later + 2 * HOUR_US)]
    assert paid == ["org_1", "org_9", "org_1"]


async def test_usage_that_waits_for_the_mapping_of_the_user_goes_to_the_org(world: World) -> None:
    """An inactive mapping comes before the announced one: the usage that it holds has no payer until the announced one
    starts, and then belongs to the org.

    ----- no payer ----- now ----- no payer ----- user_1 ----->
    """
    await world.user("user_1")
    later = world.now_us() + 24 * HOUR_US
    world.stored.map(MappingRequest("alice", "org_9", "tenant", is_active=False), world.now_us() - HOUR_US)
    world.stored.map(MappingRequest("alice", "user_1", "tenant", effective_from=later), world.now_us())
    assert (await world.process().run(ACME)).state == "migrated"
    moments = (world.now_us(), world.now_us() + HOUR_US, later + HOUR_US)
    assert [world.payer("alice", at)[0] for at in moments] == ["org_1", "org_1", "org_1"]


async def test_several_users_become_one_org(world: World) -> None:
    for user, plan in (("user_1", "starter"), ("user_2", "professional")):
        await world.user(user, plan, f"of_{user}")
        assert (await world.process().run(UserOrg(user, "org_1", "Acme"))).state == "migrated"
    customers, subscriptions = await world.everything()
    assert customers == ["org_1", "user_1", "user_2"]
    assert [one for one in subscriptions if one[0] == "org_1"] == [("org_1", "starter", "active")]
    later = world.now_us() + HOUR_US
    assert {world.payer(f"of_{user}", later)[0] for user in ("user_1", "user_2")} == {"org_1"}


async def test_without_names_the_org_has_the_users_name(world: World) -> None:
    await world.lago.save("/customers", "customer", external_id="user_1", name="Alice", email="alice@acme.io")
    assert (await world.process().run(UserOrg("user_1", "org_1"))).state == "migrated"
    created = (await world.lago.get("/customers/org_1")).json()["customer"]
    assert (created["name"], created["email"]) == ("Alice", "alice@acme.io")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (UserOrg("user_9", "org_1"), "unknown_customer"),
        (UserOrg("", "org_1"), "bad_row"),
        (UserOrg("user_1", ""), "bad_row"),
        (UserOrg("user_1", "acme"), "no_org_id"),
        (UserOrg("user_1", "plan:org_1"), "no_org_id"),
        (UserOrg("org_2", "org_1"), "user_is_org"),
        (UserOrg("user_1", "org_1.eu"), "unsafe_id"),
        (UserOrg("user_1", "org_ 1"), "unsafe_id"),
    ],
)
async def test_a_customer_that_cannot_be_migrated_is_skipped_with_a_reason(
    world: World, entry: UserOrg, reason: str
) -> None:
    await world.user("user_1")
    before = await world.everything()
    outcome = await world.process().run(entry)
    assert (outcome.state, outcome.reason) == ("skipped", reason)
    assert (await world.everything(), world.stored.audit) == (before, [])


async def test_with_several_subscriptions_none_is_guessed(world: World) -> None:
    await world.user("user_1")
    await world.lago.subscribe("another", "user_1", "professional")
    outcome = await world.process().run(ACME)
    assert (outcome.state, outcome.reason) == ("skipped", "several_subscriptions")
    await world.lago.subscribe("of the org", "org_1", "professional")
    assert (await world.process().run(ACME)).state == "migrated"
    await world.lago.subscribe("of the org, too", "org_1", "starter")
    assert (await world.process().run(ACME)).reason == "several_subscriptions"


@pytest.mark.parametrize("status", [500, 422])
async def test_a_failure_is_reported_and_does_not_affect_the_next_customer(world: World, status: int) -> None:
    await world.user("user_1", "starter")
    await world.user("user_2", "starter")
    process = world.process(Refusing("/api/v1/subscriptions", status))
    outcomes = [await process.run(UserOrg(f"user_{n}", f"org_{n}")) for n in (1, 2)]
    assert [(one.state, one.reason) for one in outcomes] == [("failed", f"http_{status}"), ("migrated", "")]
    assert (await process.run(UserOrg("user_1", "org_1"))).state == "migrated"


async def test_a_step_that_cannot_be_logged_is_not_done(world: World) -> None:
    await world.user("user_1")
    before = await world.everything()
    process = world.process()

    async def refuse(entry: UserOrg, steps: Sequence[str]) -> None:
        raise Unavailable("kafka_unavailable", "no broker")

    process.announce = refuse
    assert ((await process.run(ACME)).reason, await world.everything()) == ("kafka_unavailable", before)


def test_each_user_occurs_once_and_never_in_two_orgs() -> None:
    rows = [ACME, ACME, UserOrg("user_2", "org_1"), UserOrg("user_2", "org_2"), UserOrg("", "org_3", where="line 9")]
    clear, unclear = plan_of(rows)
    assert clear == [ACME, UserOrg("", "org_3", where="line 9")]
    assert [(one.user_id, one.org_id, one.reason) for one in unclear] == [("user_2", "org_1, org_2", "several_orgs")]
