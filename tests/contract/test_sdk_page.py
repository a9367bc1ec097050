"""The programs on docs/sdk.md run unchanged, with the endpoints of the API and a Lago sandbox."""

import inspect
import re
from collections.abc import AsyncIterator
from dataclasses import fields, is_dataclass
from typing import Any

import httpx
import pytest

import meterbridge_sdk
from meterbridge_sdk.aiohttp import org_billing_middleware
from meterbridge_sdk.asgi import OrgBillingMiddleware
from tests.support.eventually import soon
from tests.support.org_api import OrgApi, org_api
from tests.support.page_programs import names_of, printed, programs
from tests.support.pages import whole_page
from tests.support.ports import free_port
from tests.support.sandbox import event
from tests.support.served_asgi import served_asgi
from tests.support.usage_api import serving

PAGE = whole_page("sdk.md")
SUBSCRIBED, BY_HAND, BLOCKING, ON_AIOHTTP, ON_STARLETTE, ON_FASTAPI, TESTED = programs("sdk.md")
OWN_IDENTITY, METRICS, LIMITS = programs("sdk-reference.md")


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OrgApi]:
    async with org_api() as running:
        metric = await running.lago.metric("api_call", aggregation_type="count_agg", field_name=None)
        charge = {"charge_model": "standard", "properties": {"amount": "0"}}
        used = (await running.lago.get("/billable_metrics/ai_usage")).json()["billable_metric"]["lago_id"]
        charges = [{"billable_metric_id": one, **charge} for one in (used, metric)]
        await running.lago.plan("metered", 1900, charges=charges)
        for name, value in environ(running).items():
            monkeypatch.setenv(name, value)
        yield running


def environ(api: OrgApi) -> dict[str, str]:
    return {"METERBRIDGE_URL": str(api.http.base_url), "METERBRIDGE_API_KEY": "key"}


async def page_plan(api: OrgApi) -> dict[str, Any]:
    """Create the plan like on the page."""
    [body] = re.findall(r"/api/billing/plans\".*?-d '(.*?)'", PAGE, re.DOTALL)
    return await api.ask("POST", "/api/billing/plans", 201, content=body)


async def chat_request(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.post(f"{url}/v1/chat", headers={"Idempotency-Key": "k"})


async def test_the_program_that_records_records_one_call_for_any_number_of_runs(api: OrgApi) -> None:
    for _ in range(2):
        assert await printed(BY_HAND, environ(api)) == "recorded"
    [call] = api.usage.all.values()
    assert (call.org_id, call.transaction_id, call.code) == ("org_1", "call-1", "api_call")
    assert (call.properties["tokens"], call.properties["user_id"]) == ("150", "user_1")


async def test_the_program_without_asyncio_records_one_call_for_any_number_of_runs(api: OrgApi) -> None:
    for _ in range(2):
        assert await printed(BLOCKING, environ(api)) == "accepted"
    [call] = api.usage.all.values()
    assert (call.org_id, call.transaction_id, call.code) == ("org_1", "call-2", "api_call")
    assert (call.properties["tokens"], call.properties["user_id"]) == ("150", "user_1")


async def test_the_plan_of_the_page_charges_each_call(api: OrgApi) -> None:
    created = await page_plan(api)
    assert (created["code"], [charge["charge_model"] for charge in created["charges"]]) == ("api_calls", ["standard"])
    subscribed = await api.set_up("api_calls")
    for number in range(2):
        sent = event(
            f"call-{number}", external_subscription_id=subscribed["subscription"]["external_id"], code="api_call"
        )
        await api.lago.post(sent)
    usage = await api.org("GET", "/usage/current")
    assert (usage["amount_cents"], usage["charges"][0]["code"]) == (2, "api_call")


async def test_after_the_page_has_subscribed_the_org_the_services_serve_it(api: OrgApi) -> None:
    await page_plan(api)
    for _ in range(2):
        assert await printed(SUBSCRIBED, environ(api)) == "api_calls: active"
    assert len((await api.lago.get("/subscriptions")).json()["subscriptions"]) == 1
    async with serving(names_of(ON_AIOHTTP)["app"]) as url:
        assert (await chat_request(url)).status_code == 200
    assert PAGE.index(SUBSCRIBED) < PAGE.index(ON_AIOHTTP)


async def test_the_aiohttp_service_serves_limits_and_bills(api: OrgApi) -> None:
    async with serving(names_of(ON_AIOHTTP)["app"]) as url:
        assert (await chat_request(url)).status_code == 402
        created = await api.set_up("metered")
        await api.org("PUT", "/limits", json={"limits": {"tokens": 10}})
        assert (await chat_request(url)).status_code == 200
        await soon(lambda: len(api.usage.all) == 1)
    sent = event(
        external_subscription_id=created["subscription"]["external_id"],
        code="ai_usage",
        properties={"unit": "10"},
        precise_total_amount_cents="0",
    )
    await api.lago.post(sent)
    api.later(60)
    async with serving(names_of(ON_AIOHTTP)["app"]) as url:
        answer = await chat_request(url)
        assert (answer.status_code, answer.reason_phrase) == (429, "the limit tokens is used up")
    [call] = api.usage.all.values()
    assert (call.org_id, call.properties["tokens"], call.properties["model"]) == ("org_1", "150", "gpt-4")
    assert call.properties["endpoint"] == "/v1/chat"


async def test_the_starlette_service_bills_a_repeated_request_once(api: OrgApi) -> None:
    async with served_asgi(names_of(ON_STARLETTE)["app"]) as url:
        for _ in range(2):
            assert (await chat_request(url)).status_code == 200
    [call] = api.usage.all.values()
    assert (call.org_id, call.properties["user_id"], call.properties["tokens"]) == ("org_1", "user_1", "150")


async def test_the_fastapi_service_serves_limits_and_bills_a_repeated_request_once(api: OrgApi) -> None:
    async with served_asgi(names_of(ON_FASTAPI)["app"]) as url:
        assert (await chat_request(url)).status_code == 402
        created = await api.set_up("metered")
        await api.org("PUT", "/limits", json={"limits": {"tokens": 10}})
        for _ in range(2):
            assert (await chat_request(url)).status_code == 200
    [call] = api.usage.all.values()
    assert (call.org_id, call.properties["user_id"], call.properties["tokens"]) == ("org_1", "user_1", "150")
    assert (call.properties["model"], call.properties["endpoint"]) == ("gpt-4", "/v1/chat")
    sent = event(
        external_subscription_id=created["subscription"]["external_id"],
        code="ai_usage",
        properties={"unit": "10"},
        precise_total_amount_cents="0",
    )
    await api.lago.post(sent)
    api.later(60)
    async with served_asgi(names_of(ON_FASTAPI)["app"]) as url:
        answer = await chat_request(url)
    assert (answer.status_code, answer.json()["detail"]) == (429, "the limit tokens is used up")


async def test_the_services_work_although_meterbridge_does_not_answer(
    api: OrgApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise each client would get a 500 during an outage of Meterbridge."""
    opened = meterbridge_sdk.org_billing_service
    monkeypatch.setitem(getattr(opened, "__wrapped__", opened).__kwdefaults__, "flush_timeout_s", 0.1)
    monkeypatch.setenv("METERBRIDGE_URL", f"http://127.0.0.1:{free_port()}")
    async with serving(names_of(ON_AIOHTTP)["app"]) as url:
        assert (await chat_request(url)).status_code == 200
    async with served_asgi(names_of(ON_FASTAPI)["app"]) as url:
        assert (await chat_request(url)).status_code == 200
    assert not api.usage.all


def test_a_service_may_store_its_org_elsewhere() -> None:
    tenant_of = names_of(OWN_IDENTITY)["tenant_of"]
    assert tenant_of({"tenant": "org_7"}) == meterbridge_sdk.CurrentOrg("org_7")
    assert tenant_of({}) is None


async def test_the_counts_can_be_shown(api: OrgApi) -> None:
    async with serving(names_of(METRICS)["app"]) as url, httpx.AsyncClient(trust_env=False) as http:
        shown = (await http.get(f"{url}/metrics.json")).json()
    assert shown == dict.fromkeys(("waiting", "recorded", "retried", "rejected", "dropped"), 0)


async def test_limits_of_the_services_own_are_shown_with_their_use(api: OrgApi) -> None:
    await api.set_up("starter")
    assert await printed(LIMITS, environ(api)) == "amount_cents: 0 of 5000\ntokens: None of 100000"


async def test_without_a_subscription_the_limits_give_one_sentence_and_no_traceback(api: OrgApi) -> None:
    with pytest.raises(AssertionError) as result:
        await printed(LIMITS, environ(api))
    assert "not known: no_active_subscription: " in str(result.value)
    assert "Traceback" not in str(result.value)


async def test_the_test_on_the_page_passes() -> None:
    await names_of(TESTED)["test_a_request_is_recorded_with_its_tokens"]()


async def test_a_service_subscribes_an_org_once_and_sees_it_at_once(api: OrgApi) -> None:
    """Meterbridge stores the subscription's id; if it does not subscribe the org, nothing is left behind."""
    async with meterbridge_sdk.org_billing_service(str(api.http.base_url), "key"):
        with pytest.raises(meterbridge_sdk.BillingRejected, match="plan_not_found"):
            await meterbridge_sdk.subscribe_org_to_plan("org_1", "nope", "Acme", "a@acme.io")
        assert (await api.lago.get("/customers")).json()["customers"] == []
        assert await meterbridge_sdk.check_org_has_active_subscription("org_1") is False
        assert await meterbridge_sdk.get_current_usage("org_1") is None
        for _ in range(2):
            created = await meterbridge_sdk.subscribe_org_to_plan("org_1", "metered", "Acme", "a@acme.io", "user_1")
            assert await meterbridge_sdk.check_org_has_active_subscription("org_1") is True
            assert await meterbridge_sdk.get_subscription("org_1") == created
        usage = await meterbridge_sdk.get_current_usage("org_1")
        assert usage is not None
        assert (usage.external_subscription_id, usage.currency, usage.amount_cents) == (created.external_id, "USD", 0)
        assert (await meterbridge_sdk.record_usage("org_1", "gpus", "tx", {"hours": 1.5})).transaction_id == "tx"
    assert len((await api.lago.get("/subscriptions")).json()["subscriptions"]) == 1
    assert api.usage.all["tx"].properties == {"hours": "1.5", "org_id": "org_1"}


def arguments_of(function: Any) -> list[str]:
    """The arguments, optional ones in brackets."""
    parameters = inspect.signature(function).parameters.values()
    return [one.name if one.default is one.empty else f"[{one.name}]" for one in parameters]


def test_the_page_lists_every_field_that_is_returned_or_accepted() -> None:
    listed: dict[str, list[str]] = {}
    for name, members in re.findall(
        r"^\| `([A-Z]\w+)` \| ((?:`\w+`(?:, )?)+) \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE
    ):
        listed.setdefault(name, []).extend(re.findall(r"\w+", members))
    objects = {name: getattr(meterbridge_sdk, name) for name in meterbridge_sdk.__all__}
    expected = {name: fields_of(one) for name, one in objects.items() if fields_of(one)}
    assert {name: sorted(members) for name, members in listed.items()} == expected


def fields_of(one: Any) -> list[str]:
    """The sorted names of the fields of a dataclass or a named tuple; `[]` = neither."""
    return sorted([field.name for field in fields(one)] if is_dataclass(one) else getattr(one, "_fields", ()))


def test_every_name_of_the_reference_can_be_imported_with_its_arguments() -> None:
    """And every exported function is in the table."""
    listed = re.findall(r"^\| `([\w.]+)\(([^)]*)\)` \|", PAGE, re.MULTILINE)
    own = {name.rpartition(".")[2]: arguments for name, arguments in listed}
    modules = {"org_billing_middleware": org_billing_middleware, "OrgBillingMiddleware": OrgBillingMiddleware}
    assert own.keys() == modules.keys() | {name for name in meterbridge_sdk.__all__ if name.islower()}
    for name, arguments in own.items():
        given = [part.strip() for part in arguments.split(",") if part.strip() not in ("", "*")]
        assert given == arguments_of(modules.get(name) or getattr(meterbridge_sdk, name)), name


def test_every_exported_name_has_a_docstring() -> None:
    """The page leaves details to the docstrings."""
    for name in meterbridge_sdk.__all__:
        assert inspect.getdoc(getattr(meterbridge_sdk, name)), name
