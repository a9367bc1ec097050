"""Our client manages Lago through the sandbox, with the requests of Lago's own client."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from connectors.lago.client import LagoClient, LagoIntegrationError, LagoRejected, LagoUnavailable, lago_http
from connectors.lago.requests import (
    ChangePreview,
    NewCharge,
    NewCustomer,
    NewWebhookEndpoint,
    PaymentBy,
    PreviewedChange,
    PreviewOf,
    SubscriptionChange,
)
from schemas.errors import Rejected
from tests.support.lago_bodies import METRIC, plan, subscription
from tests.support.sandbox import DAY, KEY, Clock, Lago, event, lago_sandbox


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def lago(clock: Clock) -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=clock) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with lago_http(5, 4) as http:
        yield http


@pytest.fixture
async def client(lago: Lago, http: httpx.AsyncClient) -> LagoClient:
    return LagoClient(http, lago.url, KEY)


async def test_a_metric_and_a_plan_are_created_once_and_found_again(client: LagoClient) -> None:
    metric = await client.create_metric(METRIC)
    assert await client.create_metric(METRIC) == metric == await client.metric("ai_usage")
    wanted = plan("llm", 1900, NewCharge(billable_metric_id=metric.lago_id, charge_model="dynamic"))
    created = await client.create_plan(wanted)
    assert await client.create_plan(wanted) == created == await client.plan("llm")
    assert (created.amount_cents, created.interval, created.charges[0].billable_metric_code) == (
        1900,
        "monthly",
        "ai_usage",
    )
    assert (await client.metrics(), await client.plans()) == ([metric], [created])
    assert (await client.metric("nope"), await client.plan("nope")) == (None, None)


async def test_a_code_that_is_already_in_use_returns_the_existing_object(client: LagoClient) -> None:
    """The caller compares it: Lago changes neither a metric nor a plan in use."""
    await client.create_plan(plan("llm", 100))
    assert (await client.create_plan(plan("llm", 200))).amount_cents == 100


async def test_a_refusal_has_status_code_fields_and_whether_to_retry(client: LagoClient) -> None:
    with pytest.raises(LagoRejected) as caught:
        await client.create_plan(plan("llm", -5))
    error: LagoIntegrationError = caught.value
    assert (error.status, error.code, error.retryable) == (422, "validation_errors", False)
    assert error.details == {"amount_cents": ["value_is_invalid"]}
    assert str(error) == "http_422: validation_errors: amount_cents value_is_invalid"
    with pytest.raises(LagoRejected) as caught:
        await client.create_subscription(subscription("nope"))
    assert (caught.value.status, caught.value.code) == (404, "plan_not_found")


async def test_lists_are_read_completely(client: LagoClient) -> None:
    for number in range(201):
        await client.create_plan(plan(f"p{number}"))
    assert {one.code for one in await client.plans()} == {f"p{number}" for number in range(201)}


async def test_customers_are_read_completely_with_their_metadata(client: LagoClient) -> None:
    for number in range(201):
        await client.save_customer(NewCustomer(external_id=f"c{number}"), {"number": str(number)})
    found = {one.external_id: one.note("number") for one in await client.customers()}
    assert found == {f"c{number}": str(number) for number in range(201)}


async def test_a_customer_is_saved_by_its_id_and_only_given_fields_change(client: LagoClient) -> None:
    first = await client.save_customer(NewCustomer(external_id="org_1", name="Acme", email="a@acme.io"))
    second = await client.save_customer(NewCustomer(external_id="org_1", name="Acme Corp"))
    assert (second.lago_id, second.name, second.email) == (first.lago_id, "Acme Corp", "a@acme.io")
    assert await client.customer("org_1") == second
    assert [one.external_id for one in await client.customers()] == ["org_1"]


async def test_given_metadata_is_added_or_changed_and_the_rest_stays(client: LagoClient) -> None:
    acme = NewCustomer(external_id="org_1")
    await client.save_customer(acme, {"tier": "gold", "region": "eu"})
    for _ in range(2):
        await client.save_customer(acme, {"tier": "silver", "since": "2025"})
    found = await client.customer("org_1")
    assert found is not None
    assert {entry.key: entry.value for entry in found.metadata} == {"tier": "silver", "region": "eu", "since": "2025"}


async def test_two_concurrent_creations_of_a_customer_with_metadata_both_succeed(client: LagoClient) -> None:
    wanted = NewCustomer(external_id="org_1")
    saved = await asyncio.gather(*(client.save_customer(wanted, {"tier": "gold"}) for _ in range(5)))
    assert len({one.lago_id for one in saved}) == 1
    assert [(entry.key, entry.value) for entry in saved[-1].metadata] == [("tier", "gold")]


async def test_metadata_that_lago_would_refuse_is_refused_before_a_request(lago: Lago, client: LagoClient) -> None:
    for bad in ({"k" * 21: "v"}, {"k": "v" * 101}, {"k": ""}, {"": "v"}, {f"k{n}": "v" for n in range(6)}):
        with pytest.raises(Rejected, match="bad_metadata"):
            await client.save_customer(NewCustomer(external_id="org_1"), bad)
    assert await client.customer("org_1") is None


async def test_a_customer_id_with_a_dot_is_found_and_never_mistaken_for_another(client: LagoClient) -> None:
    """For Lago the path `/customers/a.b` means customer `a`."""
    await client.save_customer(NewCustomer(external_id="a", name="A"))
    assert await client.customer("a.b") is None
    await client.save_customer(NewCustomer(external_id="a.b", name="B"), {"tier": "gold"})
    await client.save_customer(NewCustomer(external_id="a.b"), {"tier": "silver"})
    found = await client.customer("a.b")
    assert found is not None
    assert (found.name, found.note("tier")) == ("B", "silver")
    for ask in (client.delete_customer, client.portal_url, client.checkout_url, lambda id_: client.usage(id_, "s")):
        with pytest.raises(LagoRejected, match="unsafe_id"):
            await ask("a.b")
    assert {one.external_id for one in await client.customers()} == {"a", "a.b"}


@pytest.mark.parametrize("external_id", ["", ".", ".."])
async def test_an_id_that_would_change_the_path_is_refused(client: LagoClient, external_id: str) -> None:
    for ask in (client.subscription, client.terminate_subscription, client.delete_customer, client.plan):
        with pytest.raises(LagoRejected, match="unsafe_id"):
            await ask(external_id)


@pytest.mark.parametrize("external_id", ["a/b", "a?b#c", "a b", "ü%2F", "../a"])
async def test_any_other_id_reaches_lago_unchanged(client: LagoClient, external_id: str) -> None:
    await client.create_plan(plan("llm"))
    customer = external_id.replace(".", "")
    await client.save_customer(NewCustomer(external_id=customer))
    await client.create_subscription(subscription(external_customer_id=customer, external_id=external_id))
    found = await client.subscription(external_id)
    assert found is not None
    assert (found.external_id, found.external_customer_id) == (external_id, customer)
    assert await client.usage(customer, external_id) is not None
    assert (await client.customer(customer)) is not None


async def test_deleting_a_deleted_customer_succeeds(client: LagoClient) -> None:
    await client.save_customer(NewCustomer(external_id="org_1"))
    deleted = await client.delete_customer("org_1")
    assert deleted is not None
    assert (deleted.external_id, await client.delete_customer("org_1")) == ("org_1", None)


async def test_a_subscription_is_created_once_changed_and_ended_once(client: LagoClient) -> None:
    for code, cents in (("llm", 0), ("pro", 4900)):
        await client.create_plan(plan(code, cents))
    first = await client.create_subscription(subscription(billing_time="anniversary"))
    assert await client.create_subscription(subscription()) == first
    upgraded = await client.create_subscription(subscription("pro"))
    assert (upgraded.external_id, upgraded.plan_code, upgraded.previous_plan_code) == ("sub_1", "pro", "llm")
    downgraded = await client.create_subscription(subscription("llm"))
    assert (downgraded.plan_code, downgraded.next_plan_code, downgraded.downgrade_plan_date) == (
        "pro",
        "llm",
        "2025-04-06",
    )
    named = await client.update_subscription("sub_1", SubscriptionChange(name="Acme"))
    assert named is not None
    assert (named.name, await client.update_subscription("sub_2", SubscriptionChange(name="x"))) == ("Acme", None)
    ended = await client.terminate_subscription("sub_1")
    assert ended is not None
    assert (ended.status, await client.terminate_subscription("sub_1")) == ("terminated", None)


async def test_the_id_of_another_customers_subscription_is_never_taken_for_ours(client: LagoClient) -> None:
    await client.create_plan(plan("llm"))
    await client.create_subscription(subscription())
    with pytest.raises(LagoRejected) as caught:
        await client.create_subscription(subscription(external_customer_id="org_2"))
    assert caught.value.says("external_id", "value_already_exist")


async def test_subscriptions_are_listed_by_customer_plan_and_state(client: LagoClient) -> None:
    for code in ("llm", "pro"):
        await client.create_plan(plan(code))
    await client.create_subscription(subscription())
    await client.create_subscription(subscription("pro", external_id="sub_2", external_customer_id="org_2"))
    await client.create_subscription(subscription(external_id="sub_3", subscription_at="2025-04-01"))
    assert [one.external_id for one in await client.subscriptions("org_1")] == ["sub_1"]
    assert [one.external_id for one in await client.subscriptions(plan_code="pro")] == ["sub_2"]
    pending = await client.subscriptions("org_1", ("pending",))
    assert [(one.external_id, one.started_at) for one in pending] == [("sub_3", None)]
    cancelled = await client.terminate_subscription("sub_3", pending=True)
    assert cancelled is not None
    assert cancelled.status == "canceled"


async def test_the_cost_of_a_plan_change_is_previewed_only_if_lago_has_the_licence(
    clock: Clock, http: httpx.AsyncClient
) -> None:
    def wanted(plan_code: str) -> ChangePreview:
        change = PreviewedChange(external_ids=("sub_1",), plan_code=plan_code)
        return ChangePreview(customer=PreviewOf(external_id="org_1"), subscriptions=change)

    for premium in (False, True):
        async with lago_sandbox(clock=clock, premium=premium) as lago:
            client = LagoClient(http, lago.url, KEY)
            await lago.sell()
            await lago.post(event(timestamp=f"{clock.now:.3f}", precise_total_amount_cents="150"))
            await client.create_plan(plan("pro", 4900))
            clock.now += 1
            predicted = await client.predicted(wanted("pro"))
            with pytest.raises(LagoRejected, match="plan_not_found"):
                await client.predicted(wanted("nope"))
            assert [one.plan_code for one in await client.subscriptions("org_1")] == ["llm"], "nothing is changed"
        if not premium:
            assert predicted is None
    assert predicted is not None
    assert (predicted.total_amount_cents, predicted.issuing_date) == (150, "2025-03-06")
    assert [(fee.item.type, fee.amount_cents) for fee in predicted.fees] == [("subscription", 0), ("charge", 150)]


async def test_usage_is_lagos_current_usage(lago: Lago, client: LagoClient) -> None:
    await lago.sell()
    await lago.post(event(precise_total_amount_cents="150"))
    usage = await client.usage("org_1", "sub_1")
    assert usage is not None
    assert (usage.amount_cents, usage.currency, usage.charges_usage[0].units) == (150, "USD", "820.0")
    narrow = await client.current_usage("org_1", "sub_1", "llm_cost")
    assert narrow is not None
    assert narrow.cents == 150
    assert await client.usage("org_1", "nope") is None
    assert await client.usage("nope", "sub_1") is None


async def test_invoices_are_listed_read_printed_and_paid(lago: Lago, clock: Clock, client: LagoClient) -> None:
    by_stripe = PaymentBy(payment_provider="stripe", payment_provider_code="main")
    await client.save_customer(NewCustomer(external_id="org_1", billing_configuration=by_stripe))
    await lago.sell()
    await lago.post(event(precise_total_amount_cents="150"))
    clock.now += 61 * DAY
    invoices = await client.invoices("org_1")
    assert [(one.issuing_date, one.total_amount_cents) for one in invoices] == [("2025-05-01", 0), ("2025-04-01", 150)]
    assert await client.invoices("org_1", most=1) == invoices[:1]
    assert await client.invoices("org_1", payment_status="pending") == invoices[1:]
    assert await client.invoices("org_2") == []
    whole = await client.invoice(invoices[1].lago_id)
    assert whole is not None
    assert [(fee.item.type, fee.amount_cents) for fee in whole.fees] == [("subscription", 0), ("charge", 150)]
    assert await client.download(whole.lago_id) is None
    printed = await client.download(whole.lago_id)
    assert printed is not None
    assert printed.file_url is not None
    assert printed.file_url.endswith(".pdf")
    assert (await client.payment_url(whole.lago_id) or "").startswith("http")
    assert await client.invoice("nope") is None
    with pytest.raises(LagoRejected, match="invoice_not_found"):
        await client.download("nope")


async def test_links_need_a_payment_provider(client: LagoClient) -> None:
    await client.save_customer(NewCustomer(external_id="org_1"))
    assert (await client.portal_url("org_1")).startswith("http")
    with pytest.raises(LagoRejected) as caught:
        await client.checkout_url("org_1")
    assert caught.value.says("base", "no_linked_payment_provider")
    await client.save_customer(
        NewCustomer(external_id="org_1", billing_configuration=PaymentBy(payment_provider="stripe"))
    )
    assert (await client.checkout_url("org_1")).startswith("http")


async def test_a_webhook_endpoint_is_registered_once(client: LagoClient) -> None:
    wanted = NewWebhookEndpoint(webhook_url="https://hooks.example/lago", signature_algo="hmac")
    other = await client.create_webhook_endpoint(NewWebhookEndpoint(webhook_url="https://a.io", signature_algo="jwt"))
    created = await client.create_webhook_endpoint(wanted)
    assert await client.create_webhook_endpoint(wanted) == created
    assert (await client.webhook_endpoints(), created.signature_algo) == ([other, created], "hmac")


async def test_a_single_event_is_posted_unchanged(lago: Lago, client: LagoClient) -> None:
    answer = await lago.post_one(event("t9"))
    assert answer.status_code == 200
    found = await client.get_event("t9")
    assert found is not None
    assert found.transaction_id == "t9"
    assert (await lago.post_one(event("t9"))).status_code == 422


async def test_only_the_requested_number_is_read() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["page"])
        page = [{"lago_id": f"{asked[-1]}-{number}"} for number in range(100)]
        return httpx.Response(200, json={"invoices": page, "meta": {"next_page": len(asked) + 1}})

    client = LagoClient(httpx.AsyncClient(transport=httpx.MockTransport(answer)), "http://lago", KEY)
    assert len(await client.invoices(most=150)) == 150
    assert asked == ["1", "2"]


async def test_a_list_whose_pages_repeat_is_an_error() -> None:
    page = {"plans": [], "meta": {"current_page": 1, "next_page": 1}}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=page))
    with pytest.raises(LagoUnavailable, match="bad_answer"):
        await LagoClient(httpx.AsyncClient(transport=transport), "http://lago", KEY).plans()


@pytest.mark.parametrize("code", ["lock_acquisition_failed", "provider_error", "third_party_error"])
async def test_a_422_that_does_not_concern_the_request_may_be_temporary(code: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(422, json={"status": 422, "code": code}))
    with pytest.raises(LagoUnavailable) as caught:
        await LagoClient(httpx.AsyncClient(transport=transport), "http://lago", KEY).plans()
    assert (caught.value.retryable, caught.value.code) == (True, code)
