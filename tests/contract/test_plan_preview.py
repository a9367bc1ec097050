"""The preview of a plan change equals the following invoices of Lago."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.org_api import OrgApi, org_api
from tests.support.sandbox import DAY, Clock, event

MARCH_1 = datetime(2025, 3, 1, tzinfo=UTC).timestamp()


@pytest.fixture
async def api() -> AsyncIterator[OrgApi]:
    async with org_api(Clock(MARCH_1)) as running:
        yield running


async def preview(api: OrgApi, plan: str, status: int = 200) -> dict[str, Any]:
    return await api.org("GET", "/subscription/preview", status, params={"plan_code": plan})


async def invoiced(api: OrgApi) -> dict[str, int]:
    """What was billed, by day."""
    found: dict[str, int] = {}
    for one in (await api.org("GET", "/invoices", params={"links": "false", "per_page": 100}))["invoices"]:
        found[one["issuing_date"]] = found.get(one["issuing_date"], 0) + one["total_amount_cents"]
    return found


async def test_an_upgrade_shows_what_is_charged_today_and_at_the_end_of_the_period(api: OrgApi) -> None:
    """
    March         1 .......... 11 noon          31
    starter       |------------]                     10 of 31 days of $19 are $6.13
    professional               [----------------|    21 of 31 days of $49 are $33.19
    """
    await api.set_up()
    api.later(10.5 * DAY)
    result = await preview(api, "professional")
    assert (result["from_plan"], result["to_plan"]) == ("starter", "professional")
    assert (result["applies"], result["applies_on"], result["currency"]) == ("now", "2025-03-11", "USD")
    assert (result["charged_cents"], result["credited_cents"], result["computed_by"]) == (613, 0, "rules")
    assert [(one["kind"], one["code"], one["amount_cents"], one["due"]) for one in result["lines"]] == [
        ("fee", "starter", 613, "2025-03-11"),
        ("fee", "professional", 3319, "2025-04-01"),
    ]
    assert result["left_out"] == ["taxes", "coupons", "wallets", "credit notes of earlier changes"]
    assert (await api.org("GET", "/subscription"))["plan_code"] == "starter", "nothing is changed"
    assert api.access.changes[1:] == []


async def test_usage_so_far_is_on_the_invoice_of_an_upgrade(api: OrgApi) -> None:
    created = await api.set_up("ai_basic")
    ids = {"external_subscription_id": created["subscription"]["external_id"], "code": "ai_usage"}
    await api.lago.post(event(timestamp=f"{api.clock.now:.3f}", precise_total_amount_cents="125.5", **ids))
    api.later(10.5 * DAY)
    result = await preview(api, "professional")
    assert result["charged_cents"] == 126
    assert [(one["kind"], one["code"], one["amount_cents"]) for one in result["lines"] if one["kind"] == "usage"] == [
        ("usage", "ai_usage", 126)
    ]
    await api.org("PUT", "/subscription", json={"plan_code": "professional"})
    assert await invoiced(api) == {"2025-03-11": 126}


async def test_a_downgrade_is_charged_at_the_end_of_the_period_with_the_usage_until_then(api: OrgApi) -> None:
    await api.set_up("professional")
    api.later(10.5 * DAY)
    result = await preview(api, "starter")
    assert (result["applies"], result["applies_on"]) == ("at_period_end", "2025-04-01")
    assert (result["charged_cents"], "usage until then" in result["left_out"]) == (4900, True)


async def test_a_change_to_the_running_plan_costs_nothing(api: OrgApi) -> None:
    await api.set_up()
    result = await preview(api, "starter")
    assert (result["applies"], result["charged_cents"], result["lines"]) == ("never", 0, [])


@pytest.mark.parametrize("billing_time", ["anniversary", "calendar"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("monthly", 3100, False), ("monthly", 6200, False)),
        (("monthly", 3100, False), ("monthly", 3100, False)),
        (("monthly", 6201, False), ("monthly", 1999, False)),
        (("monthly", 3100, False), ("yearly", 99_999, False)),
        (("yearly", 99_999, False), ("monthly", 3100, False)),
        (("weekly", 700, False), ("monthly", 9900, False)),
        (("quarterly", 10_001, False), ("weekly", 1500, False)),
        (("monthly", 3100, False), ("monthly", 6200, True)),
        (("monthly", 6200, False), ("monthly", 3100, True)),
    ],
)
@pytest.mark.parametrize(("begun_days", "days"), [(0.0, 0.2), (0.3, 0.4), (4.7, 9.9), (20.0, 61.25)])
async def test_the_preview_equals_the_bill(
    api: OrgApi,
    old: tuple[str, int, bool],
    new: tuple[str, int, bool],
    billing_time: str,
    begun_days: float,
    days: float,
) -> None:
    for code, (interval, cents, in_advance) in (("old", old), ("new", new)):
        await api.lago.plan(code, cents, interval=interval, pay_in_advance=in_advance)
    api.later(begun_days * DAY)
    body = {"plan_code": "old", "billing_time": billing_time}
    await api.org("POST", "/setup", 201, json=body)
    api.later(days * DAY)
    result, before = await preview(api, "new"), await invoiced(api)
    api.later(1)
    changed = await api.org("PUT", "/subscription", json={"plan_code": "new"})
    assert changed["applies"] == result["applies"]
    due = {result["applies_on"]: 0}
    for line in result["lines"]:
        due[line["due"]] = due.get(line["due"], 0) + line["amount_cents"]
    assert due.get(result["applies_on"], 0) == result["charged_cents"]
    for day, cents in due.items():
        api.clock.now = max(api.clock.now, datetime.fromisoformat(f"{day}T00:00:01Z").timestamp())
        now = await invoiced(api)
        assert now.get(day, 0) - before.get(day, 0) == cents, (day, result["lines"])


async def test_paid_and_unused_days_are_credited(api: OrgApi) -> None:
    for code, cents in (("old", 3100), ("new", 6200)):
        await api.lago.plan(code, cents, pay_in_advance=True)
    await api.org("POST", "/setup", 201, json={"plan_code": "old"})
    api.later(10.5 * DAY)
    result = await preview(api, "new")
    assert (result["charged_cents"], result["credited_cents"]) == (4200, 2100)


async def test_an_unknown_amount_is_not_guessed(api: OrgApi) -> None:
    await api.set_up("ai_basic")
    await api.lago.fault(kind="status", status=500, method="GET", path="/api/v1/customers/org_1/current_usage")
    assert (await preview(api, "professional", 503))["reason"] == "http_500"


async def test_an_unknown_plan_or_one_in_another_currency_is_refused(api: OrgApi) -> None:
    await api.set_up()
    await api.lago.plan("euro", 100, amount_currency="EUR")
    assert (await preview(api, "euro", 422))["reason"] == "other_currency"
    assert (await preview(api, "nope", 404))["reason"] == "plan_not_found"
    assert (await api.org("GET", "/subscription/preview", 422))["reason"] == "invalid_fields"


async def test_with_a_licence_lagos_own_preview_is_used() -> None:
    """It includes taxes, coupons and credits, which only Lago knows."""
    async with org_api(Clock(MARCH_1), premium=True) as api:
        created = await api.set_up("ai_basic")
        ids = {"external_subscription_id": created["subscription"]["external_id"], "code": "ai_usage"}
        await api.lago.post(event(timestamp=f"{api.clock.now:.3f}", precise_total_amount_cents="125.5", **ids))
        api.later(10.5 * DAY)
        result = await preview(api, "professional")
        assert (result["computed_by"], result["charged_cents"], result["left_out"]) == ("lago", 126, [])
        assert [(one["kind"], one["code"], one["amount_cents"], one["due"]) for one in result["lines"]] == [
            ("fee", "ai_basic", 0, "2025-03-11"),
            ("usage", "ai_usage", 126, "2025-03-11"),
            ("fee", "professional", 3319, "2025-04-01"),
        ]
