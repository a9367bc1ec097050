"""The specification's own snippets, with only their import line changed, and a Lago that is configured only by its two
variables.
"""

import asyncio
import inspect
import logging
import re
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import capture_logs

import meterbridge_sdk
from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_billing import OrgBilling
from connectors.billing.subscription_id_store import InMemoryIds
from connectors.library import orgs
from connectors.library.orgs import LagoIntegrationError
from connectors.library.standalone import StandaloneBilling
from tests.support.org_api import org_api
from tests.support.sandbox import KEY, NOW, Clock, Lago, lago_sandbox

logger = logging.getLogger(__name__)
ACME = ("org_1", "Acme", "a@acme.io", "user_1")


@pytest.fixture
async def lago(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lago]:
    """With the documented plans; the process knows only its two variables."""
    async with lago_sandbox(clock=Clock(), api_key=KEY) as running:
        await running.plan("founders_friend", 0)
        await running.plan("starter", 1900)
        monkeypatch.setenv("LAGO_API_URL", running.url)
        monkeypatch.setenv("LAGO_API_KEY", KEY)
        for name in ("KAFKA_BOOTSTRAP_SERVERS", "ORG_ID_PREFIXES", "SUBSCRIPTION_ID_TEMPLATE"):
            monkeypatch.delenv(name, raising=False)
        orgs.serve_with(None)
        yield running


async def customers(lago: Lago) -> list[str]:
    return [one["external_id"] for one in (await lago.get("/customers")).json()["customers"]]


async def subscriptions(lago: Lago) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await lago.get("/subscriptions")).json()["subscriptions"]
    return found


async def test_connectivity_is_checked_and_a_test_customer_created(
    lago: Lago, capsys: pytest.CaptureFixture[str]
) -> None:
    # Test customer creation
    from connectors.library.orgs import check_lago_health, create_org_customer

    # Check connectivity
    health = await check_lago_health()
    print(health)

    # Create test org customer
    customer = await create_org_customer(
        org_id="org_test_123",
        org_name="Test Organization",
        email="test@example.com",
        user_id="user_test_456"
    )  # fmt: skip
    print(customer)

    assert (health.status, health.api_url) == ("healthy", lago.url)
    assert (customer.external_id, customer.note("created_by_user_id")) == ("org_test_123", "user_test_456")
    assert customer.note("billing_type") == "organization"
    assert "org_test_123" in capsys.readouterr().out


async def test_a_new_organisation_is_subscribed_when_it_is_created(lago: Lago) -> None:
    from connectors.library.orgs import subscribe_org_to_plan

    def create_org_in_db(data: Any) -> Any:
        return SimpleNamespace(id="org_acme", name=data.name, billing_email="billing@acme.io")

    current_user = SimpleNamespace(id="user_1")

    async def create_organization(data: Any) -> Any:
        # Create org in your database
        org = create_org_in_db(data)

        # Setup billing in Lago
        await subscribe_org_to_plan(
            org_id=org.id,
            plan_code=data.plan_code,
            org_name=org.name,
            email=org.billing_email,
            user_id=current_user.id
        )  # fmt: skip

        return org

    for _ in range(2):
        await create_organization(SimpleNamespace(name="Acme", plan_code="founders_friend"))
    assert await customers(lago) == ["org_acme"]
    [subscription] = await subscriptions(lago)
    assert (subscription["plan_code"], subscription["status"]) == ("founders_friend", "active")
    assert subscription["billing_time"] == "anniversary"
    assert re.fullmatch(r"org_acme_founders_friend_\d{10}", subscription["external_id"])


async def track_usage(request: Request, call_next: Callable[[Request], Any]) -> Response:
    from connectors.library.orgs import record_api_call

    org_id = request.state.user.get("org_id")
    response: Response = await call_next(request)

    if org_id:
        await record_api_call(
            org_id=org_id,
            transaction_id=f"tx_{uuid4()}",
            endpoint=request.url.path,
            user_id=request.state.user.get("id"),
            tokens=int(response.headers.get("X-Tokens-Used", 0))
        )  # fmt: skip

    return response


async def answered(_request: Request) -> Response:
    return Response("42", headers={"X-Tokens-Used": "150"})


def of_acme() -> Request:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/chat",
        "headers": [],
        "query_string": b"",
        "server": ("x", 1),
    }
    request = Request(scope)
    request.state.user = {"id": "user_1", "org_id": "org_1"}
    return request


async def test_the_middleware_of_the_specification_records_usage(lago: Lago) -> None:
    usage = InMemoryUsage()
    orgs.serve_with(OrgBilling(StandaloneBilling.of().lago, InMemoryIds(), usage, now_us=lambda: 0))
    try:
        assert (await track_usage(of_acme(), answered)).body == b"42"
    finally:
        orgs.serve_with(None)
    [event] = usage.all.values()
    assert (event.code, event.properties["tokens"], event.properties["user_id"]) == ("api_call", "150", "user_1")


async def test_without_kafka_usage_is_refused_with_an_explanation_and_never_sent_to_lago_directly(lago: Lago) -> None:
    """Sent directly, it would be billed twice if a repeat reaches a store without deduplication."""
    with pytest.raises(LagoIntegrationError, match="KAFKA_BOOTSTRAP_SERVERS") as caught:
        await track_usage(of_acme(), answered)
    assert (caught.value.reason, caught.value.retryable) == ("usage_needs_kafka", False)
    with pytest.raises(LagoIntegrationError, match="usage_needs_kafka"):
        await orgs.record_usage("org_1", "api_call", "tx-1")


async def test_an_unavailable_kafka_is_reported_as_an_error_of_the_integration(
    lago: Lago, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with pytest.raises(LagoIntegrationError) as caught:
        await orgs.record_usage("org_1", "api_call", "tx-1")
    assert caught.value.retryable


async def test_both_kinds_of_customers_are_distinguished(lago: Lago) -> None:
    from connectors.library.orgs import get_customer, is_org_customer

    async def known(customer_id: str) -> Any:
        if is_org_customer(customer_id):
            # New org-based billing
            return await get_customer(customer_id)
        # Legacy user-based, need to migrate
        logger.warning(f"Customer {customer_id} needs migration")
        return None

    await orgs.create_org_customer(*ACME)
    assert (await known("org_1")).name == "Acme"
    assert await known("org_2") is None
    assert await known("user_1") is None


async def test_a_failure_is_caught_as_documented(lago: Lago, caplog: pytest.LogCaptureFixture) -> None:
    from connectors.library.orgs import LagoIntegrationError, create_subscription

    org_id, plan_code = "org_1", "nope"
    try:
        await create_subscription(org_id, plan_code)
    except LagoIntegrationError as e:
        logger.error(f"Billing failed: {e}")  # noqa: TRY400  # the specification's words
        # Handle appropriately
    assert "Billing failed: http_404: plan_not_found" in caplog.text


async def test_every_function_works_with_the_two_variables_only(lago: Lago) -> None:
    """Except those that record usage, see above."""
    await orgs.create_org_customer(*ACME)
    await orgs.get_or_create_customer(*ACME)
    await orgs.update_org_customer("org_1", email="b@acme.io")
    created = await orgs.create_subscription("org_1", "starter")
    assert await orgs.get_subscription("org_1") == created
    assert await orgs.check_org_has_active_subscription("org_1")
    assert await orgs.get_invoices("org_1", limit=3) == []
    assert (await orgs.get_current_usage("org_1")) is not None
    assert await orgs.get_org_plan_limits("org_1") == {}
    assert await orgs.enforce_usage_limits("org_1") == ()
    await orgs.get_or_create_customer("user_2", "Bob", "b@b.io")
    await orgs.create_subscription("user_2", "starter")
    migrated = await orgs.migrate_user_to_org("user_2", "org_2", "Bobs", "b@b.io")
    assert migrated.subscription is not None
    assert (await orgs.terminate_subscription("org_1")) is not None
    assert (await orgs.terminate_subscription("org_1")) is None
    assert (await orgs.subscribe_org_to_plan("org_3", "starter", "C", "c@c.io")).status == "active"


@pytest.mark.parametrize("name", sorted(set(orgs.__all__) - {"LagoIntegrationError", "LimitReached", "serve_with"}))
async def test_without_a_key_every_failure_is_an_error_of_the_integration(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("LAGO_API_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("LAGO_API_KEY", raising=False)
    orgs.serve_with(None)
    function = getattr(orgs, name)
    wanted = [one for one in inspect.signature(function).parameters.values() if one.default is one.empty]
    arguments = ["org_1" for _ in wanted]
    if name == "is_org_customer":
        assert function("org_1") and not function("user_1")
    elif name == "check_lago_health":
        assert (await function()).status == "unhealthy"
    else:
        with pytest.raises(LagoIntegrationError, match="LAGO_API_KEY"):
            await function(*arguments)


async def test_a_malformed_variable_is_named_and_its_value_never_shown(
    lago: Lago, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAGO_API_URL", "secret")
    with pytest.raises(LagoIntegrationError, match="LAGO_API_URL must be an address") as caught:
        await orgs.get_customer("org_1")
    assert "secret" not in str(caught.value)
    assert (await orgs.check_lago_health()).status == "unhealthy"


async def test_variables_of_the_service_itself_are_ignored(lago: Lago, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs use `PORT` and `DATABASE_URL` too: their values must not break billing."""
    monkeypatch.setenv("PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("POSTGRES_PORT", "tcp://10.0.0.1:5432")
    assert await orgs.get_customer("org_1") is None


async def test_an_unknown_plan_leaves_no_customer_behind(lago: Lago) -> None:
    with pytest.raises(LagoIntegrationError, match="plan_not_found"):
        await orgs.subscribe_org_to_plan("org_1", "nope", "Acme", "a@acme.io")
    assert await customers(lago) == []
    await orgs.create_org_customer(*ACME)
    with pytest.raises(LagoIntegrationError, match="plan_not_found"):
        await orgs.subscribe_org_to_plan("org_1", "nope", "Acme", "a@acme.io")
    assert await customers(lago) == ["org_1"], "one that was there stays"


async def test_a_refused_subscription_leaves_no_new_customer_behind(lago: Lago) -> None:
    for known in (False, True):
        if known:
            await orgs.create_org_customer(*ACME)
        await lago.fault(kind="status", status=422, path="/api/v1/subscriptions", method="POST", count=1)
        with pytest.raises(LagoIntegrationError, match="422"):
            await orgs.subscribe_org_to_plan("org_1", "starter", "Acme", "a@acme.io")
        assert await customers(lago) == (["org_1"] if known else [])
    await lago.fault(kind="status", status=500, path="/api/v1/subscriptions", method="POST", count=9)
    with pytest.raises(LagoIntegrationError, match="500"):
        await orgs.subscribe_org_to_plan("org_2", "starter", "Acme", "a@acme.io")
    assert "org_2" in await customers(lago), "its fate is not known: the same again goes on from here"


async def test_over_http_a_refused_subscription_leaves_no_new_customer_behind() -> None:
    async with org_api() as api:
        await api.lago.fault(kind="status", status=422, path="/api/v1/subscriptions", method="POST", count=1)
        await api.set_up(status=422)
        assert await customers(api.lago) == []


async def test_two_processes_that_subscribe_an_org_concurrently_create_one_subscription(lago: Lago) -> None:
    """In every process the id is that of the customer's first second."""
    one, other = StandaloneBilling(StandaloneBilling.of().access), StandaloneBilling(StandaloneBilling.of().access)
    await orgs.create_org_customer(*ACME)
    created = await asyncio.gather(
        *(each.billing.subscribe("org_1", "starter", "anniversary", None) for each in (one, other))
    )
    assert created[0].external_id == created[1].external_id == f"org_1_starter_{NOW:.0f}", (
        "Lago's second, not this machine's"
    )
    assert len(await subscriptions(lago)) == 1


async def test_an_external_service_subscribes_its_orgs_through_meterbridge() -> None:
    """Ids are stored in one place: the snippet runs, and there is one subscription."""
    async with org_api() as api:
        url = str(api.http.base_url)
        async with meterbridge_sdk.org_billing_service(url, "key"):
            created = await meterbridge_sdk.subscribe_org_to_plan("org_1", "starter", "Acme", "a@acme.io", "user_1")
            assert created.external_id == api.records.all["org_1"].subscription_id
            assert await meterbridge_sdk.get_subscription("org_1") == created
            upgraded = await meterbridge_sdk.create_subscription("org_1", "professional")
            assert (upgraded.external_id, upgraded.plan_code) == (created.external_id, "professional")
            with pytest.raises(meterbridge_sdk.BillingRejected, match="plan_not_found"):
                await meterbridge_sdk.subscribe_org_to_plan("org_2", "nope", "Bob", "b@b.io")
        assert await customers(api.lago) == ["org_1"]
        assert len(await subscriptions(api.lago)) == 1


async def test_each_log_line_has_the_documented_level(lago: Lago) -> None:
    """DEBUG usage, INFO success, WARNING a duplicate customer, ERROR a failure."""
    with capture_logs() as lines:
        await orgs.create_org_customer(*ACME)
        await orgs.create_org_customer(*ACME)
        await orgs.update_org_customer("org_1", email="b@acme.io")
        await orgs.create_subscription("org_1", "starter")
        await orgs.terminate_subscription("org_1")
        with pytest.raises(LagoIntegrationError):
            await orgs.create_subscription("org_1", "nope")
        orgs.serve_with(OrgBilling(StandaloneBilling.of().lago, InMemoryIds(), InMemoryUsage(), now_us=lambda: 0))
        await orgs.record_api_call("org_1", "tx-1", "/v1/chat")
        orgs.serve_with(None)
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("info", "org_customer_created"),
        ("warning", "org_customer_exists"),
        ("info", "org_customer_changed"),
        ("info", "org_subscribed"),
        ("info", "org_subscription_ended"),
        ("error", "org_billing_failed"),
        ("debug", "usage_recorded"),
    ]
    assert (lines[5]["function"], lines[5]["reason"]) == ("create_subscription", "http_404")


def test_the_functions_may_be_called_from_one_event_loop_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts call `asyncio.run` for each function."""
    monkeypatch.setenv("LAGO_API_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LAGO_API_KEY", KEY)
    orgs.serve_with(None)
    for _ in range(3):
        assert asyncio.run(orgs.check_lago_health()).status == "unhealthy"
