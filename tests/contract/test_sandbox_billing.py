"""Metrics, plans, and the usage computed from events: exact sums, one rounding for each fee."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.lago_sandbox.billing import current_usage
from connectors.lago_sandbox.customers import SandboxCustomers
from connectors.lago_sandbox.identifiers import Identifiers
from connectors.lago_sandbox.metrics import SandboxMetrics
from connectors.lago_sandbox.plans import SandboxPlans
from connectors.lago_sandbox.stored_event import Event
from connectors.lago_sandbox.subscriptions import SandboxSubscriptions
from tests.support.sandbox import DAY, NOW, Clock, Lago, codes, event, lago_sandbox


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def lago(clock: Clock) -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=clock) as running:
        yield running


async def post(lago: Lago, *events: dict[str, Any]) -> None:
    assert (await lago.post(*events)).status_code == 200


def costs(*amounts: str, unit: Any = "820") -> list[dict[str, Any]]:
    return [
        event(f"t{n}", precise_total_amount_cents=amount, properties={"unit": unit, "model": "gpt"})
        for n, amount in enumerate(amounts)
    ]


async def test_a_dynamic_charge_is_the_sum_of_the_amounts_rounded_once(lago: Lago) -> None:
    """0.4 + 0.4 + 0.4 cents are 1.2, which is 1; three roundings would have been 0."""
    await lago.sell()
    await post(lago, *costs("0.4", "0.4", "0.4"))
    usage = await lago.usage()
    assert (usage["amount_cents"], usage["total_amount_cents"], usage["taxes_amount_cents"]) == (1, 1, 0)
    [charge] = usage["charges_usage"]
    assert (charge["units"], charge["events_count"], charge["amount_cents"]) == ("2460.0", 3, 1)
    assert (charge["charge"]["charge_model"], charge["billable_metric"]["code"]) == ("dynamic", "llm_cost")
    assert charge["amount_currency"] == "USD"


@pytest.mark.parametrize(("amount", "rounded"), [("0.5", 1), ("1.5", 2), ("2.5", 3), ("2.499999999999999", 2)])
async def test_a_fee_is_rounded_half_up(lago: Lago, amount: str, rounded: int) -> None:
    await lago.sell()
    await post(lago, *costs(amount))
    assert (await lago.usage())["amount_cents"] == rounded


async def test_a_negative_fee_is_zero(lago: Lago) -> None:
    await lago.sell()
    await post(lago, *costs("-5"))
    assert (await lago.usage())["amount_cents"] == 0


async def test_a_correction_is_another_event_with_a_negative_amount(lago: Lago) -> None:
    await lago.sell()
    await post(lago, *costs("10", "-4"))
    assert (await lago.usage())["amount_cents"] == 6


async def test_no_units_means_no_amount(lago: Lago) -> None:
    await lago.sell()
    await post(lago, *costs("100", unit="0"))
    assert (await lago.usage())["amount_cents"] == 0


@pytest.mark.parametrize("unit", ["1e-05", ".5", "5.", "+5", " 5", "", "abc", None, True, [1]])
async def test_an_event_whose_unit_is_not_plain_digits_is_silently_skipped(lago: Lago, unit: Any) -> None:
    await lago.sell()
    await post(lago, *costs("100", unit=unit), event("good", precise_total_amount_cents="7"))
    usage = await lago.usage()
    assert (usage["amount_cents"], usage["charges_usage"][0]["events_count"]) == (7, 1)


@pytest.mark.parametrize("unit", ["5", "-5.25", "0.5", 5, 0.00001])
async def test_plain_digits_and_numbers_count(lago: Lago, unit: Any) -> None:
    await lago.sell()
    await post(lago, *costs("100", unit=unit), event("more", precise_total_amount_cents="0"))
    assert (await lago.usage())["charges_usage"][0]["events_count"] == 2


async def test_clickhouse_counts_the_amount_of_an_event_without_a_numeric_unit() -> None:
    async with lago_sandbox(clock=Clock(), store="clickhouse") as lago:
        await lago.sell()
        await post(lago, *costs("100", unit="abc"), event("good", precise_total_amount_cents="7"))
        assert (await lago.usage())["amount_cents"] == 107


async def test_another_code_is_another_metric(lago: Lago) -> None:
    await lago.sell()
    await post(lago, event(code="tokens"))
    assert (await lago.usage())["amount_cents"] == 0


async def test_with_pricing_groups_every_group_is_a_fee_with_its_own_rounding(lago: Lago) -> None:
    await lago.sell(properties={"pricing_group_keys": ["model"]})
    grouped = [("a", "0.4"), ("a", "0.4"), ("b", "0.4"), (None, "2")]
    await post(
        lago,
        *(
            event(f"t{n}", precise_total_amount_cents=cents, properties={"unit": "1"} | ({"model": m} if m else {}))
            for n, (m, cents) in enumerate(grouped)
        ),
    )
    [charge] = (await lago.usage())["charges_usage"]
    assert charge["amount_cents"] == 3
    found = {group["grouped_by"]["model"]: group["amount_cents"] for group in charge["grouped_usage"]}
    assert found == {"a": 1, "b": 0, None: 2}


async def test_a_standard_charge_is_the_units_times_the_amount(lago: Lago) -> None:
    await lago.sell(charge_model="standard", properties={"amount": "0.0000025"})
    await post(lago, event(properties={"unit": "820000"}))
    assert (await lago.usage())["amount_cents"] == 205


async def test_a_count_metric_counts_events(lago: Lago) -> None:
    calls = await lago.metric("calls", aggregation_type="count_agg")
    charge = {"billable_metric_id": calls, "charge_model": "standard", "properties": {"amount": "0.5"}}
    await lago.plan(charges=[charge])
    await lago.subscribe()
    await post(lago, event("a", code="calls", properties={}), event("b", code="calls"))
    assert (await lago.usage())["amount_cents"] == 100


async def test_a_currency_without_cents_is_rounded_to_whole_units(lago: Lago) -> None:
    metric = await lago.metric()
    charge = {"billable_metric_id": metric, "charge_model": "standard", "properties": {"amount": "0.7"}}
    await lago.plan(amount_currency="JPY", charges=[charge])
    await lago.subscribe()
    await post(lago, event(properties={"unit": "5"}))
    assert (await lago.usage())["amount_cents"] == 4


async def test_usage_is_only_that_of_the_running_period(lago: Lago, clock: Clock) -> None:
    """
    February            March 1            April 1
    --x-----------------[--x---------x-----]--x---
    """
    metric = await lago.metric()
    await lago.plan(charges=[{"billable_metric_id": metric, "charge_model": "dynamic"}])
    await lago.subscribe(subscription_at="2025-01-01")
    days = [(2025, 2, 28, 23), (2025, 3, 1, 0), (2025, 3, 31, 23), (2025, 4, 1, 0)]
    stamps = [str(datetime(*day, tzinfo=UTC).timestamp()) for day in days]
    await post(
        lago, *(event(f"t{n}", timestamp=s, precise_total_amount_cents=f"{10**n}") for n, s in enumerate(stamps))
    )
    usage = await lago.usage()
    assert (usage["from_datetime"], usage["to_datetime"]) == ("2025-03-01T00:00:00Z", "2025-03-31T23:59:59Z")
    assert usage["amount_cents"] == 110
    clock.now = datetime(2025, 4, 2, tzinfo=UTC).timestamp()
    assert (await lago.usage())["amount_cents"] == 1000
    assert (await lago.stats())["totals"]["billed_cents"] == "1110"  # the first was late for its invoice


async def test_usage_starts_with_the_subscription(lago: Lago) -> None:
    await lago.sell()
    await post(lago, event(timestamp=f"{NOW - 1:.3f}"))
    usage = await lago.usage()
    assert (usage["from_datetime"], usage["amount_cents"]) == ("2025-03-06T00:00:51Z", 0)


async def test_usage_counts_from_the_millisecond_of_the_start(lago: Lago, clock: Clock) -> None:
    clock.now = NOW + 0.0007
    await lago.sell()
    await post(lago, *costs("3"))
    assert (await lago.usage())["amount_cents"] == 3


async def test_usage_without_an_active_subscription_of_this_customer_is_405(lago: Lago) -> None:
    """It is a business state, not a wrong HTTP method."""
    await lago.sell()
    await lago.subscribe("sub_2", customer="org_2")
    for query in ({}, {"external_subscription_id": "nope"}, {"external_subscription_id": "sub_2"}):
        answer = await lago.get("/customers/org_1/current_usage", **query)
        assert answer.json() == {"status": 405, "error": "Method Not Allowed", "code": "no_active_subscription"}
        assert answer.status_code == 405
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    answer = await lago.get("/customers/org_1/current_usage", external_subscription_id="sub_1")
    assert answer.status_code == 405


async def test_metrics_and_plans_are_found_by_code_and_listed(lago: Lago) -> None:
    await lago.sell()
    for path, root in (("/billable_metrics", "billable_metric"), ("/plans", "plan")):
        code = "llm_cost" if root == "billable_metric" else "llm"
        listed = (await lago.get(path)).json()
        assert [item["code"] for item in listed[f"{root}s"]] == [code]
        assert (await lago.get(f"{path}/{code}")).json()[root] == listed[f"{root}s"][0]
        missing = await lago.get(f"{path}/nope")
        assert (missing.status_code, missing.json()["code"]) == (404, f"{root}_not_found")


async def test_a_plan_shows_its_charges_with_their_metric(lago: Lago) -> None:
    await lago.sell()
    [charge] = (await lago.get("/plans/llm")).json()["plan"]["charges"]
    assert (charge["billable_metric_code"], charge["charge_model"], charge["code"]) == (
        "llm_cost",
        "dynamic",
        "llm_cost",
    )


async def test_two_charges_on_one_metric_have_their_own_codes(lago: Lago) -> None:
    charge = {"billable_metric_id": await lago.metric(), "charge_model": "dynamic"}
    plan = (await new_plan(lago, charges=[charge, charge, charge | {"code": "mine"}])).json()["plan"]
    assert [c["code"] for c in plan["charges"]] == ["llm_cost", "llm_cost_2", "mine"]


async def test_a_code_in_use_is_refused_and_nothing_is_updated(lago: Lago) -> None:
    await lago.sell()
    metric = await lago.save(
        "/billable_metrics", "billable_metric", name="n", code="llm_cost", aggregation_type="count_agg"
    )
    assert codes(metric) == {"code": ["value_already_exist"]}
    assert codes(await new_plan(lago, code="llm")) == {"code": ["value_already_exist"]}
    assert (await lago.get("/billable_metrics/llm_cost")).json()["billable_metric"]["aggregation_type"] == "sum_agg"


async def new_plan(lago: Lago, **fields: Any) -> httpx.Response:
    plan = {"name": "p", "code": "p", "interval": "monthly", "amount_cents": 0, "amount_currency": "USD"}
    return await lago.save("/plans", "plan", **(plan | {"pay_in_advance": False} | fields))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": ""}, {"name": ["value_is_mandatory"]}),
        ({"code": None}, {"code": ["value_is_mandatory"]}),
        ({"interval": "daily"}, {"interval": ["value_is_invalid"]}),
        ({"amount_cents": None}, {"amount_cents": ["value_is_mandatory"]}),
        ({"amount_currency": "dollars"}, {"amount_currency": ["value_is_invalid"]}),
        ({"pay_in_advance": None}, {"pay_in_advance": ["value_is_invalid"]}),
    ],
)
async def test_a_plan_needs_code_interval_amount_currency_and_pay_in_advance(
    lago: Lago, fields: Any, error: Any
) -> None:
    assert codes(await new_plan(lago, **fields)) == error


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": ""}, {"name": ["value_is_mandatory"]}),
        ({"aggregation_type": "avg"}, {"aggregation_type": ["value_is_invalid"]}),
        ({"field_name": None}, {"field_name": ["value_is_mandatory"]}),
    ],
)
async def test_a_metric_needs_code_aggregation_and_field(lago: Lago, fields: Any, error: Any) -> None:
    metric = {"name": "m", "code": "m", "aggregation_type": "sum_agg", "field_name": "unit"} | fields
    assert codes(await lago.save("/billable_metrics", "billable_metric", **metric)) == error


async def test_a_charge_on_an_unknown_metric_is_404(lago: Lago) -> None:
    answer = await new_plan(lago, charges=[{"billable_metric_id": "nope", "charge_model": "dynamic"}])
    assert (answer.status_code, answer.json()["code"]) == (404, "billable_metrics_not_found")


@pytest.mark.parametrize("amount", [0.0000025, 1, "1e-6", "-1", "", None])
async def test_an_amount_in_a_charge_is_a_plain_decimal_string(lago: Lago, amount: Any) -> None:
    charge = {"charge_model": "standard", "properties": {"amount": amount}}
    answer = await new_plan(lago, charges=[charge | {"billable_metric_id": await lago.metric()}])
    assert codes(answer) == {"properties": ["invalid_amount"]}


async def test_a_dynamic_charge_needs_a_sum_metric(lago: Lago) -> None:
    calls = await lago.metric("calls", aggregation_type="count_agg")
    answer = await new_plan(lago, charges=[{"billable_metric_id": calls, "charge_model": "dynamic"}])
    assert codes(answer) == {"charge_model": ["invalid_aggregation_type_or_charge_model"]}


@pytest.mark.parametrize(
    "charge", [{"charge_model": "package"}, {"charge_model": "dynamic", "filters": [{"values": {}}]}]
)
async def test_the_sandbox_refuses_what_it_cannot_compute(lago: Lago, charge: dict[str, Any]) -> None:
    answer = await new_plan(lago, charges=[charge | {"billable_metric_id": await lago.metric()}])
    assert answer.status_code == 422
    expression = {"name": "m", "code": "m", "aggregation_type": "count_agg", "expression": "event.properties.a"}
    assert codes(await lago.save("/billable_metrics", "billable_metric", **expression)) == {
        "expression": ["invalid_expression"]
    }


@given(tenths=st.lists(st.integers(min_value=0, max_value=10**9), min_size=1, max_size=20))
@settings(max_examples=60)
def test_a_fee_is_within_half_a_cent_of_the_exact_sum_for_any_number_of_events(tenths: list[int]) -> None:
    ids, now_us = Identifiers(), int(NOW * 1_000_000)
    metrics = SandboxMetrics(ids)
    metric = metrics.add({"name": "m", "code": "m", "aggregation_type": "sum_agg", "field_name": "unit"}, now_us)
    plans = SandboxPlans(ids, metrics)
    charge = {"billable_metric_id": metric.shown["lago_id"], "charge_model": "dynamic"}
    spec = {"name": "p", "code": "p", "interval": "monthly", "amount_cents": 0, "amount_currency": "USD"}
    plans.add(spec | {"pay_in_advance": False, "charges": [charge]}, now_us)
    sold = SandboxSubscriptions(ids, SandboxCustomers(ids), plans).create(
        {"external_customer_id": "o", "external_id": "s", "plan_code": "p"}, now_us
    )
    events = [
        Event(str(n), "s", "m", now_us, f"{t // 10}.{t % 10}", b'{"unit":"1"}', now_us) for n, t in enumerate(tenths)
    ]
    usage = current_usage(sold, events, "postgres", now_us)
    assert usage["amount_cents"] == (sum(tenths) + 5) // 10


async def test_usage_of_an_invoiced_billing_period_is_accepted_and_never_billed(lago: Lago, clock: Clock) -> None:
    """Neither in the current usage nor on an invoice; `__stats` shows it at once."""
    await lago.sell()
    spring = clock.now + 40 * DAY
    await lago.post(event("in time", precise_total_amount_cents="500"))
    clock.now = spring
    late = event("late", precise_total_amount_cents="700")
    assert (await lago.post(late)).status_code == 200
    assert (await lago.get("/events/late")).status_code == 200
    stats = await lago.stats()
    assert (stats["totals"]["cents"], stats["totals"]["billed_cents"]) == ("1200", "500")
    assert (await lago.usage())["amount_cents"] == 0
    clock.now += 60 * DAY
    bills = (await lago.get("/invoices")).json()["invoices"]
    assert sorted(bill["total_amount_cents"] for bill in bills) == [0, 0, 500]


async def test_usage_that_arrives_after_the_end_of_its_subscription_is_never_billed(lago: Lago, clock: Clock) -> None:
    """The last invoice is created at the end, no matter which time the usage has."""
    await lago.sell()
    clock.now += 10
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    clock.now += 10
    await lago.post(event("late", precise_total_amount_cents="700"))
    await lago.post(event("later", precise_total_amount_cents="70", timestamp=f"{clock.now:.3f}"))
    assert (await lago.stats())["totals"]["billed_cents"] == "0"
    clock.now += 60 * DAY
    assert [bill["total_amount_cents"] for bill in (await lago.get("/invoices")).json()["invoices"]] == [0]
