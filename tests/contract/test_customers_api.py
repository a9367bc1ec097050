"""Lago's customers and plans over HTTP, in the format of Lago's API."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from connectors.http.endpoint import Principal
from schemas.customers import CustomerRecord, MappingVersion
from tests.support.org_api import OrgApi, org_api
from tests.support.sandbox import DAY

ACME = {
    "external_id": "customer-123",
    "name": "Acme Corporation",
    "email": "billing@acme.com",
    "plan_code": "ai_basic",
}
PREMIUM = {
    "name": "Premium AI Plan",
    "code": "premium_ai_plan",
    "interval": "monthly",
    "amount_cents": 2000,
    "amount_currency": "USD",
    "charges": [{"billable_metric_id": "ai_usage", "charge_model": "standard", "properties": {"amount": "0.002"}}],
}


@pytest.fixture
async def api() -> AsyncIterator[OrgApi]:
    async with org_api() as running:
        yield running


async def test_a_customer_with_a_plan_is_created_and_subscribed_once(api: OrgApi) -> None:
    created = await api.ask("POST", "/api/customers", 201, json=ACME)
    assert (created["external_id"], created["name"], created["email"]) == (
        "customer-123",
        "Acme Corporation",
        "billing@acme.com",
    )
    assert (created["subscription"]["plan_code"], created["subscription"]["status"]) == ("ai_basic", "active")
    api.later(60)
    assert await api.ask("POST", "/api/customers", 200, json=ACME) == created
    assert await api.ask("GET", "/api/customers/customer-123") == created
    assert (await api.lago.get("/subscriptions")).json()["meta"]["total_count"] == 1
    assert len(api.access.changes) == 2, "the customer, and who pays for it"


async def test_a_new_customer_pays_for_usage_that_names_it_and_the_answer_says_so(api: OrgApi) -> None:
    created = await api.ask("POST", "/api/customers", 201, json=ACME)
    mapping = created["mapping"]
    assert (mapping["litellm_customer_id"], mapping["lago_customer_id"]) == ("customer-123", "customer-123")
    assert (mapping["billing_plan"], mapping["is_active"], mapping["id_kind"]) == ("ai_basic", True, None)
    before, after = api.access.changes[-1]
    assert (before, after["versions"][0]["lago_customer_id"]) == (None, "customer-123")


async def test_saving_a_customer_never_overwrites_an_existing_mapping(api: OrgApi) -> None:
    """A person has set, deactivated or deleted this mapping on purpose."""
    kept = CustomerRecord("customer-123", (MappingVersion(0, "org_2", "t", "pro", False, "", "", 0),), 0, 0)
    api.identities.all["customer-123"] = kept
    created = await api.ask("POST", "/api/customers", 201, json=ACME)
    assert (created["mapping"]["lago_customer_id"], created["mapping"]["is_active"]) == ("org_2", False)
    assert api.identities.all["customer-123"] == kept
    deleted = CustomerRecord("gone", (MappingVersion(0, "gone", "t", "pro", False, "", "", 0, True),), 0, 0)
    api.identities.all["gone"] = deleted
    assert (await api.ask("POST", "/api/customers", 201, json=ACME | {"external_id": "gone"}))["mapping"] is None
    assert api.identities.all["gone"] == deleted


async def test_a_key_of_an_org_does_not_see_which_other_org_pays_for_a_customers_id(api: OrgApi) -> None:
    version = MappingVersion(0, "org_2", "t", "pro", True, "", "", 0)
    api.identities.all["customer-123"] = CustomerRecord("customer-123", (version,), 0, 0)
    api.access.principal = Principal("acme", frozenset({"*"}), frozenset({"customer-123"}))
    assert (await api.ask("POST", "/api/customers", 201, json=ACME))["mapping"] is None
    assert (await api.ask("GET", "/api/customers/customer-123"))["mapping"] is None


async def test_a_customer_whose_mapping_was_not_stored_is_saved_again_and_then_pays(api: OrgApi) -> None:
    api.identities.away = True
    assert (await api.ask("POST", "/api/customers", 503, json=ACME))["reason"] == "kafka_unavailable"
    api.identities.away = False
    assert (await api.ask("POST", "/api/customers", 200, json=ACME))["mapping"]["lago_customer_id"] == "customer-123"
    assert (await api.lago.get("/subscriptions")).json()["meta"]["total_count"] == 1


async def test_all_customers_are_listed_newest_first_page_by_page(api: OrgApi) -> None:
    for number in range(5):
        await api.ask("POST", "/api/customers", 201, json={"external_id": f"c{number}", "name": f"Customer {number}"})
        api.later(1)
    first = await api.ask("GET", "/api/customers?per_page=3")
    last = await api.ask("GET", "/api/customers?per_page=3&page=2")
    assert [one["external_id"] for one in first["customers"] + last["customers"]] == ["c4", "c3", "c2", "c1", "c0"]
    assert (first["customers"][0]["name"], first["meta"]["next_page"], last["meta"]["next_page"]) == (
        "Customer 4",
        2,
        None,
    )
    assert last["meta"]["total_count"] == 5
    await api.ask("GET", "/api/customers?per_page=1000", 422)


async def test_ten_concurrent_posts_of_a_customer_create_one(api: OrgApi) -> None:
    answers = await asyncio.gather(*(api.http.post("/api/customers", json=ACME) for _ in range(10)))
    assert sorted(one.status_code for one in answers) == [200] * 9 + [201]
    assert (await api.lago.get("/subscriptions")).json()["meta"]["total_count"] == 1


async def test_a_customer_without_a_plan_is_not_subscribed_until_it_has_one(api: OrgApi) -> None:
    without = {name: value for name, value in ACME.items() if name != "plan_code"}
    assert (await api.ask("POST", "/api/customers", 201, json=without))["subscription"] is None
    assert (await api.ask("POST", "/api/customers", 201, json=ACME))["subscription"]["plan_code"] == "ai_basic"


async def test_an_existing_customer_is_changed_only_in_the_given_fields(api: OrgApi) -> None:
    await api.ask("POST", "/api/customers", 201, json=ACME)
    changed = await api.ask("POST", "/api/customers", json={"external_id": "customer-123", "email": "new@acme.com"})
    assert (changed["name"], changed["email"]) == ("Acme Corporation", "new@acme.com")
    assert api.access.changes[-1][1]["email"] == "new@acme.com"
    assert api.records.all["customer-123"].email == "new@acme.com"


async def test_metadata_that_does_not_fit_into_lago_is_refused(api: OrgApi) -> None:
    for metadata in ({"k" * 21: "v"}, {"k": "v" * 101}, {"one": "1", "two": "2", "three": "3", "four": "4"}):
        await api.ask("POST", "/api/customers", 422, json=ACME | {"metadata": metadata})
    assert (await api.lago.get("/customers")).json()["customers"] == []


async def test_an_unknown_customer_is_not_found(api: OrgApi) -> None:
    for path in ("/api/customers/nope", "/api/customers/nope/invoices"):
        assert (await api.ask("GET", path, 404))["reason"] == "unknown_org"


async def test_a_customers_invoices_are_listed(api: OrgApi) -> None:
    await api.ask("POST", "/api/customers", 201, json=ACME | {"plan_code": "starter"})
    api.later(40 * DAY)
    [shown] = (await api.ask("GET", "/api/customers/customer-123/invoices"))["invoices"]
    assert (shown["total_amount_cents"], shown["status"]) == (1900, "finalized")


async def test_a_slash_in_a_customers_id_is_part_of_it(api: OrgApi) -> None:
    await api.ask("POST", "/api/customers", 201, json=ACME | {"external_id": "a/b"})
    assert (await api.ask("GET", "/api/customers/a%2Fb"))["external_id"] == "a/b"


async def test_a_plans_charge_may_name_its_metric_by_code(api: OrgApi) -> None:
    created = await api.ask("POST", "/api/billing/plans", 201, json=PREMIUM)
    assert (created["code"], created["amount_cents"], created["interval"]) == ("premium_ai_plan", 2000, "monthly")
    assert created["charges"] == [{"billable_metric_code": "ai_usage", "charge_model": "standard"}]
    [charge] = (await api.lago.get("/plans/premium_ai_plan")).json()["plan"]["charges"]
    assert (charge["charge_model"], charge["properties"]) == ("standard", {"amount": "0.002"})
    assert await api.ask("POST", "/api/billing/plans", 200, json=PREMIUM) == created
    assert len(api.access.changes) == 1
    listed = await api.ask("GET", "/api/billing/plans")
    assert listed["plans"][0]["code"] == "premium_ai_plan"
    assert len(listed["plans"]) == 5


async def test_a_plans_charge_may_name_its_metric_by_lagos_id(api: OrgApi) -> None:
    metric = (await api.lago.get("/billable_metrics/ai_usage")).json()["billable_metric"]["lago_id"]
    charges = [PREMIUM["charges"][0] | {"billable_metric_id": metric}]
    created = await api.ask("POST", "/api/billing/plans", 201, json=PREMIUM | {"charges": charges})
    assert created["charges"][0]["billable_metric_code"] == "ai_usage"


async def test_a_plan_with_an_unknown_metric_is_refused_with_an_explanation(api: OrgApi) -> None:
    """The answer names the charge and the metric, because a plan may have a hundred charges."""
    charges = [PREMIUM["charges"][0], PREMIUM["charges"][0] | {"billable_metric_id": "ai_usag"}]
    refused = await api.ask("POST", "/api/billing/plans", 422, json=PREMIUM | {"charges": charges})
    says = "`charges.1.billable_metric_id`: Lago has no billable metric with the code or the id 'ai_usag'"
    assert (refused["reason"], refused["detail"]) == ("unknown_metric", f"{says}: did you mean 'ai_usage'?")
    charges[1]["billable_metric_id"] = "tokens"
    refused = await api.ask("POST", "/api/billing/plans", 422, json=PREMIUM | {"charges": charges})
    assert refused["detail"] == says.replace("ai_usag", "tokens")


async def test_an_existing_plan_that_differs_is_a_conflict(api: OrgApi) -> None:
    """Lago does not let a plan in use be changed."""
    await api.ask("POST", "/api/billing/plans", 201, json=PREMIUM)
    refused = await api.ask("POST", "/api/billing/plans", 409, json=PREMIUM | {"amount_cents": 2500})
    assert (refused["reason"], "amount" in refused["detail"]) == ("plan_differs", True)


@pytest.mark.parametrize(
    "changed",
    [
        {"amount_cents": -1},
        {"amount_cents": 20.5},
        {"amount_currency": "usd"},
        {"interval": "daily"},
        {"charges": [PREMIUM["charges"][0] | {"properties": {"amount": 0.002}}]},
    ],
)
async def test_a_plan_that_lago_would_refuse_is_refused_with_its_field(api: OrgApi, changed: dict[str, Any]) -> None:
    assert (await api.ask("POST", "/api/billing/plans", 422, json=PREMIUM | changed))["reason"] == "invalid_fields"


async def test_a_refusal_by_lago_alone_is_passed_on_with_its_fields(api: OrgApi) -> None:
    charges = [PREMIUM["charges"][0] | {"properties": {"amount": "a lot"}}]
    refused = await api.ask("POST", "/api/billing/plans", 422, json=PREMIUM | {"charges": charges})
    assert (refused["reason"], refused["details"]) == ("validation_errors", {"properties": ["invalid_amount"]})


async def test_a_change_of_metadata_is_in_the_audit_log_before_it_is_made(api: OrgApi) -> None:
    await api.ask("POST", "/api/customers", 201, json=ACME)
    before = len(api.access.changes)
    await api.ask("POST", "/api/customers", json={"external_id": "customer-123", "metadata": {"vat": "1"}})
    assert len(api.access.changes) == before + 1
    was, becomes = api.access.changes[-1][:2]
    assert ("vat" in was["metadata"], becomes["metadata"]["vat"]) == (False, "1")


async def test_a_body_with_very_many_errors_gets_a_short_answer(api: OrgApi) -> None:
    metadata = {f"{'k' * 30}{number}": [] for number in range(20_000)}
    answer = await api.http.post("/api/customers", json={"external_id": "x", "metadata": metadata})
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 20)
    assert len(answer.content) < 20_000
