"""Lago's own Python client accepts every answer of the sandbox."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
from lago_python_client.exceptions import LagoApiError
from lago_python_client.models import (
    BatchEvent,
    BillableMetric,
    Charge,
    Charges,
    Customer,
    CustomerBillingConfiguration,
    Event,
    InvoicePreview,
    Metadata,
    MetadataList,
    Plan,
    Subscription,
    WebhookEndpoint,
)
from lago_python_client.models.subscription import Subscriptions

from tests.support.sandbox import DAY, NOW, Clock, Lago, lago_sandbox

T = TypeVar("T")


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["postgres", "clickhouse"])
async def lago(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=clock, store=request.param) as running:
        yield running


async def call(ask: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.to_thread(ask, *arguments)


def cost(transaction_id: str, cents: str) -> Event:
    return Event(
        transaction_id=transaction_id,
        external_subscription_id="sub_1",
        code="llm_cost",
        timestamp=f"{NOW:.3f}",
        precise_total_amount_cents=cents,
        properties={"unit": "820"},
    )


async def sell(lago: Lago) -> None:
    metric = BillableMetric(name="LLM cost", code="llm_cost", aggregation_type="sum_agg", field_name="unit")
    created = await call(lago.sdk.billable_metrics.create, metric)
    charge = Charge(billable_metric_id=created.lago_id, charge_model="dynamic", properties={})
    plan = Plan(
        name="LLM",
        code="llm",
        interval="monthly",
        amount_cents=0,
        amount_currency="USD",
        pay_in_advance=False,
        charges=Charges(__root__=[charge]),
    )
    await call(lago.sdk.plans.create, plan)
    bought = Subscription(external_customer_id="org_1", external_id="sub_1", plan_code="llm")
    await call(lago.sdk.subscriptions.create, bought)


async def test_the_sdk_sells_a_plan_sends_events_and_reads_the_usage(lago: Lago) -> None:
    await sell(lago)
    await call(lago.sdk.events.create, cost("t1", "1.25"))
    await call(lago.sdk.events.batch_create, BatchEvent(events=[cost("t2", "0.5"), cost("t3", "0.75")]))
    usage = await call(lago.sdk.customers.current_usage, "org_1", "sub_1")
    assert (usage.amount_cents, usage.currency) == (3, "USD")
    [charge] = usage.charges_usage
    assert (charge.units, charge.events_count, charge.billable_metric.code) == ("2460.0", 3, "llm_cost")
    found = await call(lago.sdk.events.find, "t1")
    assert (found.precise_total_amount_cents, found.properties) == ("1.25", {"unit": "820"})


async def test_the_sdk_reads_metrics_plans_and_their_lists(lago: Lago) -> None:
    await sell(lago)
    assert (await call(lago.sdk.billable_metrics.find, "llm_cost")).aggregation_type == "sum_agg"
    plan = await call(lago.sdk.plans.find, "llm")
    assert plan.charges.__root__[0].billable_metric_code == "llm_cost"
    for listed, root in ((lago.sdk.billable_metrics, "billable_metrics"), (lago.sdk.plans, "plans")):
        page = await call(listed.find_all)
        assert (len(page[root]), page["meta"]["total_count"]) == (1, 1)


async def test_the_sdk_saves_and_reads_customers(lago: Lago) -> None:
    metadata = MetadataList(__root__=[Metadata(key="tier", value="gold", display_in_invoice=False)])
    saved = await call(lago.sdk.customers.create, Customer(external_id="org_1", name="Acme", metadata=metadata))
    assert saved.metadata.__root__[0].value == "gold"
    assert await call(lago.sdk.customers.find, "org_1") == saved
    assert (await call(lago.sdk.customers.find_all))["customers"] == [saved]


async def test_the_sdk_reads_and_ends_subscriptions(lago: Lago) -> None:
    await sell(lago)
    found = await call(lago.sdk.subscriptions.find, "sub_1")
    assert (found.status, found.plan_code, found.started_at) == ("active", "llm", "2025-03-06T00:00:51.000Z")
    listed = await call(lago.sdk.subscriptions.find_all, {"external_customer_id": "org_1", "status[]": ["active"]})
    assert listed["subscriptions"][0].lago_id == found.lago_id
    assert (await call(lago.sdk.subscriptions.destroy, "sub_1")).status == "terminated"


async def test_the_sdk_changes_a_subscription_and_its_plan(lago: Lago) -> None:
    await sell(lago)
    assert (await call(lago.sdk.subscriptions.update, Subscription(name="Acme"), "sub_1")).name == "Acme"
    dearer = Plan(
        name="Pro", code="pro", interval="monthly", amount_cents=4900, amount_currency="USD", pay_in_advance=False
    )
    await call(lago.sdk.plans.create, dearer)
    for code, running, following in (("pro", "pro", None), ("llm", "pro", "llm")):
        wanted = Subscription(external_customer_id="org_1", external_id="sub_1", plan_code=code)
        found = await call(lago.sdk.subscriptions.create, wanted)
        assert (found.plan_code, found.next_plan_code) == (running, following)


async def test_the_sdk_reads_invoices_and_requests_their_pdf_and_their_payment(lago: Lago, clock: Clock) -> None:
    by_stripe = CustomerBillingConfiguration(payment_provider="stripe", payment_provider_code="main")
    await call(lago.sdk.customers.create, Customer(external_id="org_1", billing_configuration=by_stripe))
    await sell(lago)
    await call(lago.sdk.events.create, cost("t1", "1.25"))
    clock.now += 31 * DAY
    [listed] = (await call(lago.sdk.invoices.find_all, {"external_customer_id": "org_1"}))["invoices"]
    assert (listed.status, listed.total_amount_cents, listed.customer.external_id) == ("finalized", 1, "org_1")
    invoice = await call(lago.sdk.invoices.find, listed.lago_id)
    assert [fee.item.type for fee in invoice.fees.__root__] == ["subscription", "charge"]
    assert await call(lago.sdk.invoices.download, listed.lago_id) is None
    assert (await call(lago.sdk.invoices.download, listed.lago_id)).file_url
    assert await call(lago.sdk.invoices.payment_url, listed.lago_id)


async def test_the_sdks_preview_of_a_change_of_plan_needs_a_licence_as_in_lago(lago: Lago) -> None:
    await sell(lago)
    await lago.plan("pro", 4900)
    change = Subscriptions(external_ids=["sub_1"], plan_code="pro")
    for plan, status, code in (("pro", 403, "feature_unavailable"), ("nope", 404, "plan_not_found")):
        wanted = InvoicePreview(
            customer=Customer(external_id="org_1"), subscriptions=change.copy(update={"plan_code": plan})
        )
        with pytest.raises(LagoApiError) as caught:
            await call(lago.sdk.invoices.preview, wanted)
        assert (caught.value.status_code, caught.value.response["code"]) == (status, code)


async def test_the_sdk_requests_a_customers_links_and_deletes_the_customer(lago: Lago) -> None:
    by_stripe = CustomerBillingConfiguration(payment_provider="stripe")
    await call(lago.sdk.customers.create, Customer(external_id="org_1", billing_configuration=by_stripe))
    assert await call(lago.sdk.customers.portal_url, "org_1")
    assert await call(lago.sdk.customers.checkout_url, "org_1")
    assert (await call(lago.sdk.customers.destroy, "org_1")).external_id == "org_1"


async def test_the_sdk_registers_webhook_endpoints(lago: Lago) -> None:
    wanted = WebhookEndpoint(webhook_url="https://hooks.example/lago", signature_algo="hmac")
    created = await call(lago.sdk.webhook_endpoints.create, wanted)
    assert (await call(lago.sdk.webhook_endpoints.find_all))["webhook_endpoints"] == [created]


async def test_the_sdks_list_of_a_customers_subscriptions_sends_no_key_and_is_refused_as_by_lago(lago: Lago) -> None:
    """A bug of lago-python-client 1.55.0 (`mixins.py`, lists below a parent): use `/subscriptions` instead."""
    await sell(lago)
    with pytest.raises(LagoApiError) as caught:
        await call(lago.sdk.customer_subscriptions.find_all, "org_1")
    assert caught.value.status_code == 401


async def test_the_sdks_errors_contain_status_and_body(lago: Lago) -> None:
    await sell(lago)
    metric = BillableMetric(name="n", code="llm_cost", aggregation_type="count_agg")
    refused: list[tuple[int, Callable[[], Any], str]] = [
        (404, lambda: lago.sdk.customers.find("nope"), "customer_not_found"),
        (404, lambda: lago.sdk.subscriptions.destroy("nope"), "subscription_not_found"),
        (405, lambda: lago.sdk.customers.current_usage("org_1", "nope"), "no_active_subscription"),
        (422, lambda: lago.sdk.billable_metrics.create(metric), "validation_errors"),
        (422, lambda: lago.sdk.events.batch_create(BatchEvent(events=[])), "validation_errors"),
    ]
    for status, ask, code in refused:
        with pytest.raises(LagoApiError) as caught:
            await call(ask)
        assert (caught.value.status_code, caught.value.response["code"]) == (status, code)
