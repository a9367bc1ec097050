"""Making a bill smaller and creating payment links need a scope and are in the audit log before they happen."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from connectors.http.endpoint import Principal
from tests.support.org_api import ORGS, OrgApi, org_api
from tests.support.sandbox import DAY

BY_STRIPE = {"payment_provider": "stripe", "payment_provider_code": "main"}
USAGE = {"event_code": "api_call", "transaction_id": "tx-1", "properties": {"tokens": 150, "model": "gpt-4"}}
#: Fields of an answer that allow a payment or an action.
POWER = {"url", "payment_url", "token"}
#: Shows invoices as the list does, and never asks Lago for a link.
WITHOUT_LINKS = f"{ORGS}/{{org_id}}/dashboard"


@pytest.fixture
async def api() -> AsyncIterator[OrgApi]:
    async with org_api() as running:
        yield running


@pytest.mark.parametrize(
    "value",
    [
        -1e308,
        1e308,
        10**25,
        -(10**25),
        10**4000,
        "9" * 26,
        "1e25",
        "1e999999999",
        "-1e99999999999999999999",
        1e-16,
        "0.0000000000000001",
        "1." + "1" * 40,
        "+1e30",
        " 1e30 ",
        "0." + "0" * 80,
    ],
)
async def test_a_number_that_lago_cannot_hold_is_refused(api: OrgApi, value: Any) -> None:
    """Earlier -1e308 was accepted, and from then on Lago's answers for the org were errors."""
    result = await api.ask("POST", f"{ORGS}/org_1/usage/record", 422, json=USAGE | {"properties": {"unit": value}})
    assert result["reason"] in ("number_out_of_range", "invalid_fields", "bad_property")
    assert api.usage.all == {}
    assert api.access.changes == []


@pytest.mark.parametrize(
    "value",
    [
        0,
        1,
        10**25 - 1,
        0.1 + 0.2,
        1e24,
        1e-15,
        "0.000000000000001",
        "9" * 25,
        "-0",
        "2025-06-01",
        "1_000_000e99",
        "e9",
        "-",
    ],
)
async def test_a_valid_number_and_a_text_are_accepted(api: OrgApi, value: Any) -> None:
    api.access.principal = Principal("key mb_1", frozenset({"usage:write"}), frozenset({"org_1"}))
    await api.org("POST", "/usage/record", 202, json=USAGE | {"properties": {"unit": value}})


@pytest.mark.parametrize("value", [-1, -0.5, "-1", "-0.5", " -1 ", "-1e3", "-.5", "-5."])
async def test_making_a_bill_smaller_needs_its_own_scope(api: OrgApi, value: Any) -> None:
    usage = USAGE | {"properties": {"model": "m-1", "unit": value}}
    orgs = frozenset({"org_1"})
    api.access.principal = Principal("key mb_1", frozenset({"usage:write"}), orgs)
    result = await api.org("POST", "/usage/record", 403, json=usage)
    assert (result["reason"], "usage:correct" in result["detail"], "unit" in result["detail"]) == (
        "missing_scope",
        True,
        True,
    )
    assert (api.usage.all, api.access.changes) == ({}, [])
    api.access.principal = Principal("key mb_2", frozenset({"usage:write", "usage:correct"}), orgs)
    await api.org("POST", "/usage/record", 202, json=usage)


async def test_the_recorder_of_usage_is_in_the_record_and_in_the_audit_log(api: OrgApi) -> None:
    api.access.principal = Principal("key mb_1", frozenset({"usage:write"}), frozenset({"org_1"}))
    await api.org("POST", "/usage/record", 202, json=USAGE | {"timestamp": "2025-03-05T23:56:40Z"})
    assert api.usage.all["tx-1"].actor == "key mb_1"
    result = {"event_code": "api_call", "transaction_id": "tx-1", "at": "2025-03-05T23:56:40.000000Z"}
    [(before, after)] = api.access.changes
    assert (before, after) == (None, result | {"numbers": {"tokens": "150"}})


async def test_without_an_audit_line_no_usage_is_accepted_and_no_link_returned(api: OrgApi) -> None:
    await api.set_up()
    await api.lago.save("/customers", "customer", external_id="org_1", billing_configuration=BY_STRIPE)
    api.later(31 * DAY)
    api.access.away = True
    assert (await api.org("POST", "/usage/record", 503, json=USAGE))["reason"] == "kafka_unavailable"
    assert api.usage.all == {}
    for path in ("/checkout", "/portal", "/payment", "/invoices"):
        answer = await api.http.get(f"{ORGS}/org_1{path}")
        assert (answer.status_code, "http" in answer.text) == (503, False), path
    assert (await api.org("GET", "/invoices", params={"links": "false"}))["invoices"]


async def test_no_browser_and_no_proxy_keeps_an_answer_with_a_link_to_pay_by(api: OrgApi) -> None:
    await api.set_up()
    await api.lago.save("/customers", "customer", external_id="org_1", billing_configuration=BY_STRIPE)
    api.later(31 * DAY)
    paths = [f"{ORGS}/org_1{path}" for path in ("/checkout", "/portal", "/payment", "/invoices")]
    for path in (*paths, "/api/customers/org_1/invoices"):
        answer = await api.http.get(path)
        assert (answer.status_code, answer.headers.get("cache-control")) == (200, "no-store"), path


async def test_the_receiver_of_a_payment_link_is_logged_without_the_link(api: OrgApi) -> None:
    await api.set_up()
    await api.lago.save("/customers", "customer", external_id="org_1", billing_configuration=BY_STRIPE)
    api.later(31 * DAY)
    for path in ("/checkout", "/portal", "/payment", "/invoices"):
        api.access.changes.clear()
        await api.org("GET", path)
        [(before, after)] = api.access.changes
        assert (before, "handed_out" in after, "http" in str(after)) == (None, True, False), path
    api.access.changes.clear()
    invoice = (await api.ask("GET", "/api/customers/org_1/invoices"))["invoices"][0]
    assert [after["invoice_ids"] for _, after in api.access.changes] == [invoice["lago_id"]]
    api.access.changes.clear()
    await api.org("GET", "/invoices", params={"links": "false"})
    assert api.access.changes == []


async def test_every_endpoint_that_may_return_a_link_declares_it(api: OrgApi) -> None:
    """A new endpoint must not be forgotten."""
    for endpoint in api.endpoints:
        gives = any(model is not None and POWER & _fields(model) for model in endpoint.answers.values())
        assert gives == bool(endpoint.hands_out) or endpoint.path == WITHOUT_LINKS, (endpoint.method, endpoint.path)


def _fields(model: type[BaseModel]) -> set[str]:
    found = set(model.model_fields)
    for schema in model.model_json_schema().get("$defs", {}).values():
        found |= set(schema.get("properties", ()))
    return found
