"""Invoices are created at the end of a period and of a subscription from what had arrived, and never change."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.sandbox import DAY, Clock, Lago, codes, event, lago_sandbox

MARCH_1 = datetime(2025, 3, 1, tzinfo=UTC).timestamp()


@pytest.fixture
async def clock() -> Clock:
    return Clock(MARCH_1)


@pytest.fixture
async def lago(clock: Clock) -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=clock) as running:
        yield running


async def listed(lago: Lago, **query: Any) -> list[dict[str, Any]]:
    answer = await lago.get("/invoices", **query)
    assert answer.status_code == 200, answer.text
    invoices: list[dict[str, Any]] = answer.json()["invoices"]
    return invoices


async def fees(lago: Lago, invoice: dict[str, Any]) -> list[tuple[str, int]]:
    shown = (await lago.get(f"/invoices/{invoice['lago_id']}")).json()["invoice"]
    return [(fee["item"]["type"], fee["amount_cents"]) for fee in shown["fees"]]


async def test_a_period_is_billed_once_it_has_ended(lago: Lago, clock: Clock) -> None:
    await lago.sell()
    await lago.post(event(timestamp=f"{clock.now + 60:.3f}", precise_total_amount_cents="125.5"))
    assert await listed(lago) == []
    clock.now += 31 * DAY
    [invoice] = await listed(lago)
    assert (invoice["issuing_date"], invoice["number"], invoice["currency"]) == ("2025-04-01", "LAG-001-001", "USD")
    assert (invoice["status"], invoice["payment_status"], invoice["total_amount_cents"]) == (
        "finalized",
        "pending",
        126,
    )
    assert await fees(lago, invoice) == [("subscription", 0), ("charge", 126)]
    clock.now += 30 * DAY
    assert [one["issuing_date"] for one in await listed(lago)] == ["2025-05-01", "2025-04-01"]


async def test_usage_that_arrives_after_its_invoice_is_not_billed(lago: Lago, clock: Clock) -> None:
    await lago.sell()
    late = clock.now + 60
    clock.now += 31 * DAY + 1
    await lago.post(event("late", timestamp=f"{late:.3f}", precise_total_amount_cents="500"))
    assert [one["total_amount_cents"] for one in await listed(lago)] == [0]


async def test_usage_that_arrived_in_time_is_billed_even_if_invoices_are_listed_later(lago: Lago, clock: Clock) -> None:
    await lago.sell()
    await lago.post(event("in time", timestamp=f"{clock.now + 60:.3f}", precise_total_amount_cents="500"))
    clock.now += 40 * DAY
    await lago.post(event("late", timestamp=f"{MARCH_1 + 60:.3f}", precise_total_amount_cents="700"))
    assert [one["total_amount_cents"] for one in await listed(lago)] == [500]


async def test_a_fee_is_for_each_started_day_and_the_last_day_before_an_upgrade_belongs_to_the_new_plan(
    lago: Lago, clock: Clock
) -> None:
    """
    March   1 .......... 11 noon          31
    basic   |------------]                     10 of 31 days of $31
    pro                  [----------------|    21 of 31 days of $62
    """
    await lago.plan("basic", 3100)
    await lago.plan("pro", 6200)
    await lago.subscribe(plan="basic")
    clock.now += 10.5 * DAY
    await lago.subscribe(plan="pro")
    [closing] = await listed(lago)
    assert (closing["issuing_date"], closing["total_amount_cents"]) == ("2025-03-11", 1000)
    clock.now = MARCH_1 + 31 * DAY
    assert [one["total_amount_cents"] for one in await listed(lago)] == [4200, 1000]


async def test_a_downgraded_plan_is_billed_in_full_at_its_end(lago: Lago, clock: Clock) -> None:
    await lago.plan("basic", 3100)
    await lago.plan("pro", 6200)
    await lago.subscribe(plan="pro")
    await lago.subscribe(plan="basic")
    clock.now += 61 * DAY
    assert [one["total_amount_cents"] for one in await listed(lago)] == [3100, 6200]


async def test_an_invoice_shows_which_subscription_it_counts_and_what_of_it(lago: Lago, clock: Clock) -> None:
    """
    March   1                        31 | 1 .. 2 April
    sub_1   |---------------------------|------|
    """
    await lago.sell()
    clock.now += 32.5 * DAY
    answer = await lago.http.delete("/api/v1/subscriptions/sub_1")
    ended = answer.json()["subscription"]
    invoices = [(await lago.get(f"/invoices/{one['lago_id']}")).json()["invoice"] for one in await listed(lago)]
    last, first = [one["billing_periods"][0] for one in invoices]
    assert last["lago_subscription_id"] == first["lago_subscription_id"] == ended["lago_id"]
    assert (first["charges_from_datetime"], first["charges_to_datetime"], first["invoicing_reason"]) == (
        "2025-03-01T00:00:00Z",
        "2025-03-31T23:59:59Z",
        "subscription_periodic",
    )
    assert (last["charges_from_datetime"], last["charges_to_datetime"], last["invoicing_reason"]) == (
        "2025-04-01T00:00:00Z",
        ended["terminated_at"],
        "subscription_terminating",
    )


async def test_without_usage_there_is_no_fee(lago: Lago, clock: Clock) -> None:
    await lago.sell()
    clock.now += 1.5 * DAY
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    [invoice] = await listed(lago)
    assert await fees(lago, invoice) == [("subscription", 0)]


async def test_the_invoice_of_an_end_may_be_counted_some_time_after_it(clock: Clock) -> None:
    """
    sub_1  ------------|  counted 60 s later
            before       meanwhile | late      all with a moment before the end
    """
    async with lago_sandbox(clock=clock, invoice_delay_s=60) as lago:
        await lago.sell()
        at = f"{clock.now + 60:.3f}"
        clock.now += 3600
        await lago.post(event("before", timestamp=at, precise_total_amount_cents="1"))
        await lago.http.delete("/api/v1/subscriptions/sub_1")
        clock.now += 59
        assert await listed(lago) == []
        await lago.post(event("meanwhile", timestamp=at, precise_total_amount_cents="2"))
        clock.now += 2
        await lago.post(event("late", timestamp=at, precise_total_amount_cents="4"))
        [invoice] = await listed(lago)
        assert await fees(lago, invoice) == [("subscription", 0), ("charge", 3)]
        assert (await lago.stats())["totals"]["billed_cents"] == "3"


async def test_an_end_is_invoiced_even_if_invoices_were_listed_at_that_moment(lago: Lago, clock: Clock) -> None:
    await lago.sell()
    await lago.post(event("t1", timestamp=f"{clock.now + 60:.3f}", precise_total_amount_cents="3"))
    clock.now += DAY
    assert await listed(lago) == []
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    for _ in range(2):
        assert [one["total_amount_cents"] for one in await listed(lago)] == [3]


async def test_an_end_may_have_no_invoice(lago: Lago, clock: Clock) -> None:
    await lago.sell()
    for number in range(2):
        await lago.post(event(f"t{number}", timestamp=f"{clock.now + 60:.3f}", precise_total_amount_cents="3"))
        clock.now += 31.5 * DAY
    answer = await lago.http.delete("/api/v1/subscriptions/sub_1?on_termination_invoice=skip")
    assert answer.json()["subscription"]["on_termination_invoice"] == "skip"
    await lago.post(event("t2", timestamp=f"{clock.now - 60:.3f}", precise_total_amount_cents="3"))
    clock.now += 60 * DAY
    assert [one["total_amount_cents"] for one in await listed(lago)] == [3, 3]
    assert (await lago.stats())["totals"]["billed_cents"] == "6"


async def test_an_end_bills_usage_to_its_last_millisecond_and_each_started_day(lago: Lago, clock: Clock) -> None:
    metric = await lago.metric()
    await lago.plan(amount_cents=3100, charges=[{"billable_metric_id": metric, "charge_model": "dynamic"}])
    await lago.subscribe()
    clock.now += 1.5 * DAY
    await lago.post(event(timestamp=f"{clock.now:.3f}", precise_total_amount_cents="7"))
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    [invoice] = await listed(lago)
    assert await fees(lago, invoice) == [("subscription", 200), ("charge", 7)]
    clock.now += 60 * DAY
    assert await listed(lago) == [invoice]


async def test_an_end_at_midnight_starts_that_day(lago: Lago, clock: Clock) -> None:
    await lago.plan(amount_cents=3100)
    await lago.subscribe()
    clock.now += 2 * DAY
    await lago.http.delete("/api/v1/subscriptions/sub_1")
    assert [one["total_amount_cents"] for one in await listed(lago)] == [300]


async def test_a_period_that_ended_before_the_subscription_was_created_is_not_billed(lago: Lago, clock: Clock) -> None:
    await lago.plan(amount_cents=3100)
    await lago.subscribe(subscription_at="2025-01-01")
    clock.now += 31 * DAY
    assert [one["issuing_date"] for one in await listed(lago)] == ["2025-04-01"]


async def test_a_plan_paid_in_advance_is_billed_at_the_start_of_each_period(lago: Lago, clock: Clock) -> None:
    clock.now += 15 * DAY
    await lago.plan(amount_cents=3100, pay_in_advance=True)
    await lago.subscribe()
    assert [one["total_amount_cents"] for one in await listed(lago)] == [1600]
    clock.now = MARCH_1 + 31 * DAY
    assert [one["total_amount_cents"] for one in await listed(lago)] == [3100, 1600]


async def test_an_invoice_of_zero_is_marked_as_paid_or_skipped_as_the_customer_is_configured(
    lago: Lago, clock: Clock
) -> None:
    await lago.plan()
    await lago.save("/customers", "customer", external_id="org_2", finalize_zero_amount_invoice="skip")
    await lago.subscribe()
    await lago.subscribe("sub_2", "org_2")
    clock.now += 31 * DAY
    [invoice] = await listed(lago)
    assert (invoice["customer"]["external_id"], invoice["payment_status"]) == ("org_1", "succeeded")


async def test_invoices_are_listed_by_customer_state_and_day(lago: Lago, clock: Clock) -> None:
    await lago.plan(amount_cents=3100)
    await lago.subscribe()
    await lago.subscribe("sub_2", "org_2")
    clock.now += 61 * DAY

    async def count(**query: str) -> int:
        return len(await listed(lago, **query))

    assert await count() == 4
    assert await count(external_customer_id="org_2") == 2
    assert len((await lago.get("/customers/org_2/invoices")).json()["invoices"]) == 2
    assert await count(status="draft") == await count(payment_status="succeeded") == await count(currency="EUR") == 0
    assert await count(issuing_date_from="2025-05-01") == await count(issuing_date_to="2025-04-30") == 2


async def test_a_pdf_is_created_at_the_first_request_and_available_at_the_next(lago: Lago, clock: Clock) -> None:
    await lago.plan(amount_cents=3100)
    await lago.subscribe()
    clock.now += 31 * DAY
    [invoice] = await listed(lago)
    assert invoice["file_url"] is None
    path = f"/api/v1/invoices/{invoice['lago_id']}/download"
    first = await lago.http.post(path)
    assert (first.status_code, first.content) == (200, b"")
    again = (await lago.http.post(path + "_pdf")).json()["invoice"]
    assert again["file_url"].endswith(f"{invoice['lago_id']}.pdf")


async def test_an_unknown_invoice_is_404(lago: Lago) -> None:
    for ask in (lago.get("/invoices/nope"), lago.http.post("/api/v1/invoices/nope/download")):
        answer = await ask
        assert (answer.status_code, answer.json()["code"]) == (404, "invoice_not_found")


@pytest.mark.parametrize(
    ("provider", "cents", "code"),
    [
        (None, 3100, "no_linked_payment_provider"),
        ("gocardless", 3100, "invalid_payment_provider"),
        ("stripe", 0, "invalid_invoice_status_or_payment_status"),
        ("stripe", 3100, ""),
    ],
)
async def test_an_invoice_can_be_paid_if_a_provider_gives_links_and_an_amount_is_due(
    lago: Lago, clock: Clock, provider: str | None, cents: int, code: str
) -> None:
    configuration = {"payment_provider": provider} if provider else {}
    await lago.save("/customers", "customer", external_id="org_1", billing_configuration=configuration)
    await lago.plan(amount_cents=cents)
    await lago.subscribe()
    clock.now += 31 * DAY
    [invoice] = await listed(lago)
    answer = await lago.http.post(f"/api/v1/invoices/{invoice['lago_id']}/payment_url")
    if code:
        assert codes(answer) == {"base": [code]}
    else:
        details = answer.json()["invoice_payment_details"]
        assert (details["external_customer_id"], details["payment_provider"]) == ("org_1", "stripe")
        assert details["payment_url"].endswith(invoice["lago_id"])
