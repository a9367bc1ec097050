"""The module for org billing with the sandbox: its signatures, and that every step may be repeated."""

import asyncio
import inspect
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.billing.org_billing import OrgBilling
from connectors.library import orgs
from connectors.library.orgs import LagoIntegrationError
from schemas.errors import Unavailable
from schemas.moments import SECOND_US, parse_us
from streams.core.mapping.subscription_ids import STABLE
from tests.support.mortal_wire import Killed, MortalWire
from tests.support.orgs_world import World, orgs_world
from tests.support.sandbox import NOW, event

ACME = ("org_1", "Acme", "a@acme.io", "user_1")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with orgs_world() as there:
        yield there


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("create_org_customer", "org_id org_name email user_id metadata"),
        ("get_customer", "org_id"),
        ("update_org_customer", "org_id org_name email metadata"),
        ("get_or_create_customer", "org_id org_name email user_id metadata"),
        ("create_subscription", "org_id plan_code billing_time subscription_at"),
        ("subscribe_org_to_plan", "org_id plan_code org_name email user_id"),
        ("get_subscription", "org_id"),
        ("terminate_subscription", "org_id subscription_id"),
        ("record_usage", "org_id event_code transaction_id properties timestamp"),
        ("record_api_call", "org_id transaction_id endpoint user_id tokens model"),
        ("get_invoices", "org_id limit"),
        ("get_current_usage", "org_id"),
        ("migrate_user_to_org", "user_id org_id org_name email"),
        ("is_org_customer", "external_id"),
        ("check_lago_health", ""),
        ("check_org_has_active_subscription", "org_id"),
        ("get_org_plan_limits", "org_id"),
        ("enforce_usage_limits", "org_id"),
    ],
)
def test_every_function_has_its_documented_signature(name: str, parameters: str) -> None:
    function = getattr(orgs, name)
    assert list(inspect.signature(function).parameters) == parameters.split()
    assert inspect.iscoroutinefunction(function) is (name != "is_org_customer")
    assert name in orgs.__all__


async def test_an_org_is_a_customer_that_stores_its_creator_and_time(world: World) -> None:
    created = await orgs.create_org_customer(*ACME, {"tier": "gold"})
    assert (created.external_id, created.name, created.email) == ("org_1", "Acme", "a@acme.io")
    assert {entry.key: entry.value for entry in created.metadata} == {
        "tier": "gold",
        "created_by_user_id": "user_1",
        "created_at": "2025-03-06T00:00:51Z",
        "billing_type": "organization",
    }
    assert await orgs.get_customer("org_1") == created
    assert await orgs.get_customer("org_2") is None


async def test_an_existing_org_is_returned_unchanged(world: World) -> None:
    created = await orgs.get_or_create_customer(*ACME)
    assert (created.external_id, created.name, created.note("created_by_user_id")) == ("org_1", "Acme", "user_1")
    world.clock.now += 60
    assert await orgs.get_or_create_customer("org_1", "Other", "b@acme.io", "user_2", {"tier": "gold"}) == created
    assert await orgs.create_org_customer("org_1", "Other", "b@acme.io") == created


async def test_an_existing_org_is_changed_only_in_the_given_fields(world: World) -> None:
    await orgs.create_org_customer(*ACME)
    for _ in range(2):
        changed = await orgs.update_org_customer("org_1", email="b@acme.io", metadata={"tier": "gold"})
    assert (changed.name, changed.email, changed.note("tier")) == ("Acme", "b@acme.io", "gold")
    assert changed.note("created_by_user_id") == "user_1"
    with pytest.raises(LagoIntegrationError, match="unknown_customer"):
        await orgs.update_org_customer("org_2", "Globex")


async def test_an_id_that_lago_would_mistake_for_another_is_refused(world: World) -> None:
    for unsafe in ("org_1.eu", "org_1 eu", "org_1%20eu"):
        with pytest.raises(LagoIntegrationError, match="unsafe_id"):
            await orgs.create_org_customer(unsafe, "Acme", "a@acme.io")


async def test_a_subscription_has_its_documented_id_and_starts_on_its_anniversary(world: World) -> None:
    created = await orgs.subscribe_org_to_plan("org_1", "founders_friend", "Acme", "a@acme.io", "user_1")
    assert created.external_id == f"org_1_founders_friend_{NOW:.0f}" == world.ids.all["org_1"]
    assert (created.status, created.billing_time, created.external_customer_id) == ("active", "anniversary", "org_1")
    assert await orgs.get_subscription("org_1") == created
    assert await orgs.get_subscription("org_2") is None


async def test_a_plan_change_keeps_the_id_because_lago_upgrades_only_then(world: World) -> None:
    first = await orgs.subscribe_org_to_plan("org_1", "starter", "Acme", "a@acme.io")
    world.clock.now += 3600
    upgraded = await orgs.create_subscription("org_1", "professional")
    assert (upgraded.external_id, upgraded.previous_plan_code) == (first.external_id, "starter")
    downgraded = await orgs.create_subscription("org_1", "starter")
    assert (downgraded.plan_code, downgraded.next_plan_code) == ("professional", "starter")
    assert (await world.everything())[1] == [
        ("org_1", "professional", "active"),
        ("org_1", "starter", "pending"),
        ("org_1", "starter", "terminated"),
    ]


async def test_an_id_may_be_the_same_in_every_process(world: World) -> None:
    world.process(template=STABLE)
    assert (await orgs.create_subscription("org_1", "starter")).external_id == "sub_org_1"


async def test_after_a_kill_at_any_request_a_second_run_leaves_one_customer_with_one_subscription(world: World) -> None:
    """The clock is later each time, so an id generated a second time would be different."""
    untouched = MortalWire()
    world.process(untouched)
    await orgs.subscribe_org_to_plan("org_0", "starter", "Acme", "a@acme.io", "user_1")
    steps = len(untouched.requests)
    assert steps == 6
    fates = [(step, sent) for step in range(1, steps + 1) for sent in (False, True)]
    for number, (step, sent) in enumerate(fates, start=1):
        org = f"org_{number}"
        world.process(MortalWire(step, sent=sent))
        with pytest.raises(Killed):
            await orgs.subscribe_org_to_plan(org, "starter", "Acme", "a@acme.io", "user_1")
        world.clock.now += 60
        world.process()
        created = await orgs.subscribe_org_to_plan(org, "starter", "Acme", "a@acme.io", "user_1")
        assert created.external_id == world.ids.all[org]
    customers, subscriptions = await world.everything()
    everybody = sorted(f"org_{number}" for number in range(len(fates) + 1))
    assert customers == everybody
    assert subscriptions == [(org, "starter", "active") for org in everybody]


async def test_ten_concurrent_calls_create_one(world: World) -> None:
    world.process()
    asked = (orgs.subscribe_org_to_plan("org_1", "starter", "Acme", "a@acme.io", "user_1") for _ in range(10))
    created = await asyncio.gather(*asked)
    assert len({one.lago_id for one in created}) == 1
    assert await world.everything() == (["org_1"], [("org_1", "starter", "active")])


async def test_an_existing_subscription_in_lago_is_used(world: World) -> None:
    await world.lago.subscribe("made by hand", "org_1", "starter")
    changed = await orgs.create_subscription("org_1", "professional")
    assert (changed.external_id, world.ids.all["org_1"]) == ("made by hand", "made by hand")


async def test_if_lago_has_several_subscriptions_none_is_changed(world: World) -> None:
    for name in ("one", "two"):
        await world.lago.subscribe(name, "org_1", "starter")
        world.clock.now += 60
    with pytest.raises(LagoIntegrationError, match="several_subscriptions"):
        await orgs.create_subscription("org_1", "professional")
    world.ids.all["org_1"] = "one"
    with pytest.raises(LagoIntegrationError, match="several_subscriptions"):
        await orgs.create_subscription("org_1", "professional")
    assert (await world.everything())[1] == [("org_1", "starter", "active")] * 2
    assert (await orgs.get_subscription("org_1")).external_id == "one"  # type: ignore[union-attr]


async def test_beside_a_subscription_of_another_program_no_second_one_is_created(world: World) -> None:
    world.ids.all["org_1"] = "ours, ended long ago"
    await world.lago.subscribe("made by hand", "org_1", "starter")
    with pytest.raises(LagoIntegrationError, match="several_subscriptions"):
        await orgs.create_subscription("org_1", "professional")


async def test_a_pending_subscription_is_used_too(world: World) -> None:
    await world.lago.subscribe("made by hand", "org_1", "starter", subscription_at="2025-04-01")
    assert (await orgs.create_subscription("org_1", "professional")).external_id == "made by hand"
    assert (await world.everything())[1] == [("org_1", "professional", "pending")]


async def test_an_unknown_plan_leaves_nothing_behind(world: World) -> None:
    with pytest.raises(LagoIntegrationError) as caught:
        await orgs.create_subscription("org_1", "nope")
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (404, "plan_not_found", False)
    assert world.ids.all == {}


async def test_a_subscription_is_ended_once_and_may_start_again_under_its_id(world: World) -> None:
    created = await orgs.create_subscription("org_1", "starter")
    assert await orgs.get_subscription("org_1") == created
    world.clock.now += 60
    ended = await orgs.terminate_subscription("org_1", created.external_id)
    assert ended is not None
    assert (ended.status, await orgs.terminate_subscription("org_1")) == ("terminated", None)
    assert await orgs.get_subscription("org_1") is None
    world.clock.now += 60
    assert (await orgs.create_subscription("org_1", "professional")).external_id == created.external_id


async def test_a_pending_subscription_is_cancelled(world: World) -> None:
    await orgs.create_subscription("org_1", "starter", subscription_at="2025-04-01")
    ended = await orgs.terminate_subscription("org_1")
    assert ended is not None
    assert ended.status == "canceled"


async def test_another_orgs_subscription_is_not_ended(world: World) -> None:
    created = await orgs.create_subscription("org_1", "starter")
    with pytest.raises(LagoIntegrationError, match="other_org"):
        await orgs.terminate_subscription("org_2", created.external_id)


async def test_a_subscription_is_read_from_lago_rarely_and_after_every_change(world: World) -> None:
    wire = MortalWire()
    world.process(wire)
    await orgs.create_subscription("org_1", "starter")
    before = len(wire.requests)
    for _ in range(3):
        assert (await orgs.get_subscription("org_1")).plan_code == "starter"  # type: ignore[union-attr]
    assert len(wire.requests) == before + 1
    await orgs.create_subscription("org_1", "professional")
    assert (await orgs.get_subscription("org_1")).plan_code == "professional"  # type: ignore[union-attr]
    await world.lago.http.delete(f"/api/v1/subscriptions/{world.ids.all['org_1']}")
    world.ticks += 15
    assert await orgs.get_subscription("org_1") is None


async def test_usage_is_passed_to_the_sink_once_and_never_to_lago(world: World) -> None:
    for _ in range(2):
        recorded = await orgs.record_usage("org_1", "ai_usage", "tx-1", {"unit": 150, "user_id": "user_1"})
    assert list(world.usage.all.values()) == [recorded]
    assert (recorded.org_id, recorded.code, recorded.at_us) == ("org_1", "ai_usage", NOW * SECOND_US)
    assert recorded.properties == {"unit": "150", "user_id": "user_1", "org_id": "org_1"}
    assert (await world.lago.stats())["posts"] == 0


async def test_an_api_call_is_recorded_with_its_user_and_its_tokens(world: World) -> None:
    recorded = await orgs.record_api_call("org_1", "tx-2", "/api/test", "user_1", 150, "gpt-4")
    assert (recorded.code, recorded.transaction_id) == ("api_call", "tx-2")
    assert recorded.properties == {
        "endpoint": "/api/test",
        "user_id": "user_1",
        "tokens": "150",
        "model": "gpt-4",
        "org_id": "org_1",
    }
    assert (await orgs.record_api_call("org_1", "tx-3", "/x")).properties == {
        "endpoint": "/x",
        "tokens": "0",
        "org_id": "org_1",
    }


@pytest.mark.parametrize(
    "moment", [1741219000, 1741219000000, "2025-03-05T23:56:40Z", datetime(2025, 3, 5, 23, 56, 40, tzinfo=UTC)]
)
async def test_usage_may_have_its_own_time(world: World, moment: Any) -> None:
    recorded = await orgs.record_usage("org_1", "ai_usage", "tx-1", timestamp=moment)
    assert recorded.at_us == parse_us("2025-03-05T23:56:40Z")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("org_1", "ai_usage", ""), "bad_event"),
        (("org_1", " ", "t"), "bad_event"),
        (("", "ai_usage", "t"), "bad_event"),
        (("org_1", "ai_usage", "t" * 256), "bad_event"),
        (("org_1", "ai_usage", "t\0"), "bad_event"),
        (("org_1", "ai_usage", "t", {"unit": float("nan")}), "bad_property"),
        (("org_1", "ai_usage", "t", {"unit": [1]}), "bad_property"),
        (("org_1", "ai_usage", "t", {}, "yesterday"), "bad_time"),
        (("org_1", "ai_usage", "t", {}, datetime(2025, 1, 1)), "bad_time"),
    ],
)
async def test_usage_that_can_never_be_billed_is_refused(world: World, arguments: Any, reason: str) -> None:
    with pytest.raises(LagoIntegrationError, match=reason):
        await orgs.record_usage(*arguments)
    assert world.usage.all == {}


async def test_numbers_are_plain_digits_because_lago_silently_ignores_other_forms(world: World) -> None:
    given = {"a": 1e-05, "b": Decimal("1E+3"), "c": True, "d": 10**20, "e": "1e-05", "f": None, "org_id": "other"}
    recorded = await orgs.record_usage("org_1", "ai_usage", "t", given)
    assert recorded.properties == {
        "a": "0.00001",
        "b": "1000",
        "c": "true",
        "d": "1" + "0" * 20,
        "e": "1e-05",
        "org_id": "org_1",
    }


async def test_a_sink_that_cannot_store_now_reports_that_a_retry_may_help(world: World) -> None:
    class Away:
        async def record(self, event: object) -> None:
            raise Unavailable("kafka_unavailable", "no broker")

    billing = OrgBilling(MortalWire().client(world.lago.url), world.ids, Away(), now_us=lambda: 0)
    orgs.serve_with(billing)
    with pytest.raises(LagoIntegrationError) as caught:
        await orgs.record_usage("org_1", "ai_usage", "t")
    assert (caught.value.reason, caught.value.retryable) == ("kafka_unavailable", True)


async def test_usage_and_invoices_are_lagos(world: World) -> None:
    metric = await world.lago.metric("ai_usage")
    await world.lago.plan("ai_basic", charges=[{"billable_metric_id": metric, "charge_model": "dynamic"}])
    created = await orgs.create_subscription("org_1", "ai_basic")
    sent = event(external_subscription_id=created.external_id, code="ai_usage", precise_total_amount_cents="150")
    await world.lago.post(sent)
    usage = await orgs.get_current_usage("org_1")
    assert usage is not None
    assert (usage.amount_cents, usage.charges_usage[0].billable_metric.code) == (150, "ai_usage")
    assert await orgs.get_current_usage("org_2") is None
    assert await orgs.get_invoices("org_1") == []
    world.clock.now += 70 * 86_400
    assert [one.total_amount_cents for one in await orgs.get_invoices("org_1")] == [0, 150]
    assert [one.total_amount_cents for one in await orgs.get_invoices("org_1", limit=1)] == [0]


async def test_an_org_takes_over_from_a_user_and_stores_the_users_id(world: World) -> None:
    await world.lago.subscribe("of the user", "user_1", "starter", billing_time="calendar")
    for _ in range(2):
        migrated = await orgs.migrate_user_to_org("user_1", "org_1", "Acme", "a@acme.io")
        world.clock.now += 60
    assert migrated.org.note("migrated_from_user") == "user_1"
    assert migrated.subscription is not None
    assert (migrated.subscription.plan_code, migrated.subscription.billing_time) == ("starter", "calendar")
    assert [one.external_id for one in migrated.to_end] == ["of the user"]
    assert (await world.everything())[1] == [("org_1", "starter", "active"), ("user_1", "starter", "active")]


async def test_several_users_become_one_org_whose_plan_stays(world: World) -> None:
    for user, plan in (("user_1", "starter"), ("user_2", "professional"), ("a,b", "starter")):
        await world.lago.subscribe(f"of {user}", user, plan)
        for _ in range(2):
            migrated = await orgs.migrate_user_to_org(user, "org_1", "Acme", "a@acme.io")
    assert migrated.org.note("migrated_from_user") == "user_1,user_2,a,b"
    assert migrated.subscription is not None
    assert migrated.subscription.plan_code == "starter"


async def test_metadata_without_free_room_does_not_stop_a_migration(world: World) -> None:
    await orgs.create_org_customer(*ACME, {"one": "1", "two": "2"})
    await world.lago.save("/customers", "customer", external_id="user_1")
    migrated = await orgs.migrate_user_to_org("user_1", "org_1", "Acme", "a@acme.io")
    assert (migrated.org.note("migrated_from_user"), migrated.subscription, migrated.to_end) == (None, None, ())


async def test_an_unknown_user_is_not_migrated(world: World) -> None:
    with pytest.raises(LagoIntegrationError, match="unknown_customer"):
        await orgs.migrate_user_to_org("user_9", "org_1", "Acme", "a@acme.io")
    assert await world.everything() == ([], [])


async def test_an_org_is_recognised_by_its_id(world: World) -> None:
    assert (orgs.is_org_customer("org_1"), orgs.is_org_customer("user_org_1")) == (True, False)
    world.process(prefixes=("team-", "acct-"))
    assert [orgs.is_org_customer(one) for one in ("org_1", "team-1", "acct-1")] == [False, True, True]


async def test_health_is_returned_and_never_raised(world: World) -> None:
    result = await orgs.check_lago_health()
    assert (result.status, result.api_url, result.version) == ("healthy", world.lago.url, "v1.51.0")
    nowhere = MortalWire().client("http://127.0.0.1:1")
    orgs.serve_with(OrgBilling(nowhere, world.ids, world.usage, now_us=lambda: 0))
    result = await orgs.check_lago_health()
    assert (result.status, result.version) == ("unhealthy", "")


async def test_without_a_lago_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAGO_API_KEY", raising=False)
    orgs.serve_with(None)
    with pytest.raises(LagoIntegrationError, match="LAGO_API_KEY must be set"):
        await orgs.get_customer("org_1")


def test_the_page_lists_every_function_with_its_arguments() -> None:
    page = (Path(__file__).parents[2] / "docs" / "orgs.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)\(([^)]*)\)` \|", page, re.MULTILINE))
    functions = {name for name in orgs.__all__ if name.islower() and name != "serve_with"}
    assert set(listed) == functions
    for name, arguments in listed.items():
        given = [part.partition("=")[0].strip() for part in arguments.split(",") if part.strip() not in ("", "...")]
        if arguments != "...":
            assert given == list(inspect.signature(getattr(orgs, name)).parameters), name
