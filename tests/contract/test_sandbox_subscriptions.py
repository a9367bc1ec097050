"""Subscriptions: creation is idempotent, upgrades apply at once, downgrades at the end of the period, and a termination
once.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.sandbox import DAY, NOW, Clock, Lago, codes, event, lago_sandbox


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def lago(clock: Clock) -> AsyncIterator[Lago]:
    """With the monthly plans `free` (0), `llm` (0), `basic` ($10) and `pro` ($50)."""
    async with lago_sandbox(clock=clock) as running:
        for code, amount in (("free", 0), ("llm", 0), ("basic", 1000), ("pro", 5000)):
            await running.plan(code, amount)
        yield running


async def refused(lago: Lago, **fields: Any) -> Any:
    spec = {"external_customer_id": "org_1", "external_id": "sub_1", "plan_code": "llm"} | fields
    return codes(await lago.save("/subscriptions", "subscription", **spec))


async def listed(lago: Lago, *statuses: str, **query: Any) -> list[tuple[str, str, str]]:
    answer = await lago.get("/subscriptions", **({"status[]": list(statuses)} if statuses else {}), **query)
    return [(s["external_id"], s["plan_code"], s["status"]) for s in answer.json()["subscriptions"]]


async def test_a_new_subscription_creates_its_customer_with_the_plans_currency(lago: Lago) -> None:
    created = await lago.subscribe(name=" Acme's ")
    assert (created["status"], created["name"], created["billing_time"]) == ("active", "Acme's", "calendar")
    assert created["started_at"] == "2025-03-06T00:00:51.000Z"
    assert created["external_customer_id"] == "org_1"
    assert (await lago.get("/customers/org_1")).json()["customer"]["currency"] == "USD"


async def test_a_customers_own_currency_stays(lago: Lago) -> None:
    await lago.save("/customers", "customer", external_id="org_1", currency="EUR")
    await lago.subscribe()
    assert (await lago.get("/customers/org_1")).json()["customer"]["currency"] == "EUR"


async def test_the_same_id_and_plan_again_is_the_same_subscription_unchanged(lago: Lago, clock: Clock) -> None:
    first = await lago.subscribe()
    clock.now += 3600
    assert await lago.subscribe(name="ignored") == first
    assert len(await listed(lago, "active", "terminated", "pending", "canceled")) == 1


async def test_an_upgrade_is_immediate_and_keeps_the_external_id(lago: Lago, clock: Clock) -> None:
    """
    basic  |-------]          terminated now
    pro            [--------  active from now
    """
    first = await lago.subscribe(plan="basic")
    clock.now += 3600
    second = await lago.subscribe(plan="pro")
    assert second["lago_id"] != first["lago_id"]
    assert (second["external_id"], second["status"], second["previous_plan_code"]) == ("sub_1", "active", "basic")
    ended = (await lago.get("/subscriptions/sub_1", status="terminated")).json()["subscription"]
    assert (ended["lago_id"], ended["next_plan_code"]) == (first["lago_id"], "pro")
    assert ended["downgrade_plan_date"] is None
    assert ended["terminated_at"] == "2025-03-06T01:00:51Z"
    assert second["started_at"] == "2025-03-06T01:00:51.000Z"


async def test_an_upgrade_keeps_the_first_day_the_billing_time_and_the_end(lago: Lago) -> None:
    began = {"subscription_at": "2025-01-31", "billing_time": "anniversary", "ending_at": "2025-12-31"}
    first = await lago.subscribe(plan="basic", **began)
    second = await lago.subscribe(plan="pro")
    assert second["lago_id"] != first["lago_id"]
    for name in ("subscription_at", "billing_time", "ending_at"):
        assert second[name] == first[name], name
    assert (await lago.subscribe(plan="llm", ending_at="2026-01-01"))["plan_code"] == "pro"
    [pending] = (await lago.get("/subscriptions", **{"status[]": "pending"})).json()["subscriptions"]
    assert pending["ending_at"] == "2026-01-01T00:00:00Z"


async def test_a_plan_of_equal_price_is_an_upgrade(lago: Lago) -> None:
    await lago.subscribe(plan="free")
    assert (await lago.subscribe(plan="llm"))["previous_plan_code"] == "free"


async def test_prices_are_compared_by_year(lago: Lago) -> None:
    await lago.plan("weekly", 1000, interval="weekly")
    await lago.subscribe(plan="basic")
    assert (await lago.subscribe(plan="weekly"))["plan_code"] == "weekly"


async def test_a_downgrade_waits_for_the_end_of_the_period(lago: Lago, clock: Clock) -> None:
    """
    pro    |-----------------]             until the first of April
    basic                    [-----------  pending until then
    """
    await lago.subscribe(plan="pro")
    current = await lago.subscribe(plan="basic")
    assert (current["plan_code"], current["status"], current["next_plan_code"]) == ("pro", "active", "basic")
    assert current["downgrade_plan_date"] == "2025-04-01"
    assert await listed(lago, "pending") == [("sub_1", "basic", "pending")]
    clock.now = datetime(2025, 3, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    assert await listed(lago) == [("sub_1", "pro", "active")]
    clock.now += 1
    assert await listed(lago) == [("sub_1", "basic", "active")]
    [active] = (await lago.get("/subscriptions")).json()["subscriptions"]
    assert active["started_at"] == "2025-04-01T00:00:00.000Z"


async def test_a_downgrade_waits_for_the_plans_own_period_even_when_charges_are_billed_monthly(lago: Lago) -> None:
    await lago.plan("yearly", 100_000, interval="yearly", bill_charges_monthly=True)
    created = await lago.subscribe(plan="yearly")
    assert created["current_billing_period_ending_at"] == "2025-03-31T23:59:59Z"
    assert (await lago.subscribe(plan="basic"))["downgrade_plan_date"] == "2026-01-01"


async def test_another_plan_change_replaces_the_pending_one(lago: Lago) -> None:
    await lago.subscribe(plan="pro")
    await lago.subscribe(plan="basic")
    assert (await lago.subscribe(plan="free"))["next_plan_code"] == "free"
    both = await listed(lago, "pending", "canceled")
    assert sorted(both) == [("sub_1", "basic", "canceled"), ("sub_1", "free", "pending")]


async def test_a_subscription_may_start_in_the_past(lago: Lago) -> None:
    created = await lago.subscribe(subscription_at="2025-01-15T10:00:00Z")
    assert (created["status"], created["started_at"]) == ("active", "2025-01-15T10:00:00.000Z")


async def test_a_restart_in_the_past_is_moved_to_the_last_termination(lago: Lago) -> None:
    await lago.subscribe()
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    again = await lago.subscribe(subscription_at="2025-01-15")
    assert (again["subscription_at"], again["started_at"]) == ("2025-01-15T00:00:00Z", "2025-03-06T00:00:51.000Z")


async def test_a_subscription_of_a_later_day_is_pending_until_then(lago: Lago, clock: Clock) -> None:
    created = await lago.subscribe(subscription_at="2025-03-08T10:00:00Z")
    assert (created["status"], created["started_at"]) == ("pending", None)
    assert (await lago.subscribe(plan="pro"))["plan_code"] == "pro"
    clock.now += 2 * DAY
    assert await listed(lago) == [("sub_1", "pro", "active")]


async def test_a_subscription_ends_on_its_last_day(lago: Lago, clock: Clock) -> None:
    await lago.subscribe(ending_at="2025-03-08")
    clock.now += DAY
    assert await listed(lago) == [("sub_1", "llm", "active")]
    clock.now += DAY
    assert await listed(lago, "terminated") == [("sub_1", "llm", "terminated")]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"external_customer_id": ""}, {"external_customer_id": ["value_is_mandatory"]}),
        ({"external_id": None}, {"external_id": ["value_is_mandatory"]}),
        ({"external_id": " "}, {"external_id": ["value_is_mandatory"]}),
        ({"subscription_at": "yesterday"}, {"subscription_at": ["invalid_date"]}),
        ({"ending_at": "2025-03-06"}, {"ending_at": ["invalid_date"]}),
        ({"billing_time": "lunar"}, {"billing_time": ["value_is_invalid"]}),
    ],
)
async def test_a_missing_or_malformed_field_is_refused(lago: Lago, fields: Any, error: Any) -> None:
    assert await refused(lago, **fields) == error
    assert await listed(lago, "active", "pending") == []


async def test_an_active_id_of_another_customer_is_refused(lago: Lago) -> None:
    await lago.subscribe()
    assert await refused(lago, external_customer_id="org_2") == {"external_id": ["value_already_exist"]}


async def test_a_plan_change_under_another_id_is_a_second_subscription_and_both_are_billed(
    lago: Lago, clock: Clock
) -> None:
    await lago.subscribe("sub_1", "org_1", "basic")
    await lago.subscribe("sub_2", "org_1", "pro")
    assert sorted(await listed(lago)) == [("sub_1", "basic", "active"), ("sub_2", "pro", "active")]
    clock.now += 70 * DAY
    invoices = (await lago.get("/invoices", external_customer_id="org_1")).json()["invoices"]
    whole_months = [one["total_amount_cents"] for one in invoices if one["issuing_date"] == "2025-05-01"]
    assert sum(whole_months) == 1000 + 5000


async def test_an_unknown_plan_is_404(lago: Lago) -> None:
    answer = await lago.save("/subscriptions", "subscription", external_id="s", plan_code="nope")
    assert (answer.status_code, answer.json()["code"]) == (404, "plan_not_found")


async def test_plan_overrides_need_a_premium_licence(lago: Lago) -> None:
    spec = {"external_customer_id": "o", "external_id": "s", "plan_code": "llm", "plan_overrides": {"name": "x"}}
    answer = await lago.save("/subscriptions", "subscription", **spec)
    assert answer.status_code == 403
    assert answer.json() == {"status": 403, "error": "Forbidden", "code": "feature_unavailable"}


async def test_delete_terminates_and_a_second_time_is_404(lago: Lago) -> None:
    await lago.subscribe()
    ended = (await lago.http.delete("/api/v1/subscriptions/sub_1")).json()["subscription"]
    assert (ended["status"], ended["terminated_at"]) == ("terminated", "2025-03-06T00:00:51Z")
    for method in ("DELETE", "GET"):
        answer = await lago.http.request(method, "/api/v1/subscriptions/sub_1")
        assert (answer.status_code, answer.json()["code"]) == (404, "subscription_not_found")


async def test_a_pending_subscription_is_cancelled_only_on_request(lago: Lago) -> None:
    await lago.subscribe(plan="pro")
    await lago.subscribe(plan="basic")
    answer = await lago.http.delete("/api/v1/subscriptions/sub_1", params={"status": "pending"})
    assert (answer.json()["subscription"]["plan_code"], answer.json()["subscription"]["status"]) == (
        "basic",
        "canceled",
    )
    assert await listed(lago) == [("sub_1", "pro", "active")]


async def test_terminating_cancels_the_pending_plan_change(lago: Lago, clock: Clock) -> None:
    await lago.subscribe(plan="pro")
    await lago.subscribe(plan="basic")
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    clock.now += 60 * DAY
    assert await listed(lago) == []


async def test_an_id_is_free_again_after_termination(lago: Lago) -> None:
    first = await lago.subscribe()
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    again = await lago.subscribe(customer="org_2")
    assert again["lago_id"] != first["lago_id"]
    assert again["status"] == "active"


async def test_only_active_subscriptions_are_listed_unless_asked_otherwise(lago: Lago) -> None:
    await lago.subscribe("s1")
    await lago.subscribe("s2", customer="org_2", plan="pro")
    await lago.subscribe("s3")
    await lago.http.delete("/api/v1/subscriptions/s3")
    assert set(await listed(lago)) == {("s1", "llm", "active"), ("s2", "pro", "active")}
    assert await listed(lago, "terminated") == [("s3", "llm", "terminated")]
    assert await listed(lago, external_customer_id="org_2") == [("s2", "pro", "active")]
    assert await listed(lago, plan_code="llm") == [("s1", "llm", "active")]
    assert await listed(lago, external_id="s2") == [("s2", "pro", "active")]
    of_customer = (await lago.get("/customers/org_1/subscriptions")).json()
    assert [s["external_id"] for s in of_customer["subscriptions"]] == ["s1"]


async def test_a_subscription_id_may_hold_dots(lago: Lago) -> None:
    await lago.subscribe("a.b")
    assert (await lago.get("/subscriptions/a.b")).json()["subscription"]["external_id"] == "a.b"


async def test_statistics_include_changes_that_have_become_due(lago: Lago, clock: Clock) -> None:
    await lago.subscribe(subscription_at="2025-03-08T10:00:00Z")
    await lago.post(event(timestamp=f"{NOW + 2 * DAY:.3f}"))
    assert (await lago.stats())["totals"]["billed_cents"] == "0"
    clock.now += 2 * DAY
    assert (await lago.stats())["totals"]["billed_cents"] == "1.25"


@pytest.mark.parametrize(
    ("interval", "billing_time", "period"),
    [
        ("weekly", "calendar", ("2025-03-03", "2025-03-09")),
        ("monthly", "calendar", ("2025-03-01", "2025-03-31")),
        ("quarterly", "calendar", ("2025-01-01", "2025-03-31")),
        ("semiannual", "calendar", ("2025-01-01", "2025-06-30")),
        ("yearly", "calendar", ("2025-01-01", "2025-12-31")),
        ("weekly", "anniversary", ("2025-02-28", "2025-03-06")),
        ("monthly", "anniversary", ("2025-02-28", "2025-03-30")),
        ("quarterly", "anniversary", ("2025-01-31", "2025-04-29")),
        ("yearly", "anniversary", ("2025-01-31", "2026-01-30")),
    ],
)
async def test_periods_follow_the_calendar_or_the_day_on_which_the_subscription_started(
    lago: Lago, interval: str, billing_time: str, period: tuple[str, str]
) -> None:
    """Today is Thursday 6 March 2025; anniversaries are those of Friday 31 January 2025."""
    await lago.plan(interval, interval=interval)
    began = "2025-01-31" if billing_time == "anniversary" else "2024-01-31"
    created = await lago.subscribe(plan=interval, billing_time=billing_time, subscription_at=began)
    shown = (created["current_billing_period_started_at"], created["current_billing_period_ending_at"])
    assert shown == (f"{period[0]}T00:00:00Z", f"{period[1]}T23:59:59Z")


@pytest.mark.parametrize(
    ("offset", "billed"), [(-0.001, "0"), (0, "1.25"), (3600, "1.25"), (7200, "1.25"), (7200.001, "0")]
)
async def test_an_event_counts_from_the_start_to_the_termination_both_included(
    lago: Lago, clock: Clock, offset: float, billed: str
) -> None:
    """
    sub_1       [started ------------ terminated]
    event    x  x              x                x  x
    """
    await lago.subscribe()
    await lago.post(event(timestamp=f"{NOW + offset:.3f}"))
    clock.now += 7200
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    stats = (await lago.stats())["subscriptions"]["sub_1"]
    assert (stats["cents"], stats["billed_cents"]) == ("1.25", billed)


async def test_a_start_is_truncated_to_the_millisecond_before_events_are_matched(lago: Lago, clock: Clock) -> None:
    clock.now = NOW + 0.0007
    await lago.subscribe()
    await lago.post(event(timestamp=f"{NOW:.3f}"))
    assert (await lago.stats())["totals"]["billed_cents"] == "1.25"


async def test_an_event_for_an_unknown_subscription_is_accepted_and_never_billed(lago: Lago) -> None:
    assert (await lago.post(event(external_subscription_id="nobody"))).status_code == 200
    stats = (await lago.stats())["subscriptions"]["nobody"]
    assert (stats["events"], stats["billed_cents"]) == (1, "0")


async def test_an_event_sent_before_its_subscription_is_billed_once_if_the_subscription_starts_early_enough(
    lago: Lago,
) -> None:
    await lago.post(event())
    await lago.subscribe(subscription_at="2025-03-01")
    assert (await lago.stats())["subscriptions"]["sub_1"]["billed_cents"] == "1.25"


async def test_across_an_upgrade_every_event_is_billed_once(lago: Lago, clock: Clock) -> None:
    await lago.subscribe(plan="basic")
    clock.now += 3600
    await lago.subscribe(plan="pro")
    await lago.post(*(event(f"t{n}", timestamp=f"{NOW + n * 1800:.3f}") for n in range(5)))
    assert (await lago.stats())["subscriptions"]["sub_1"]["billed_cents"] == "6.25"
