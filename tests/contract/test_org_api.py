"""Orgs over HTTP with a Lago sandbox: set up, moved to other plans, ended; every repeated request is executed once."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from connectors.http.endpoint import Principal
from tests.support.org_api import ORGS, OrgApi, org_api
from tests.support.sandbox import DAY, NOW

SETUP = {"plan_code": "starter", "org_name": "Acme", "email": "a@acme.io", "user_id": "user_1"}


@pytest.fixture
async def api() -> AsyncIterator[OrgApi]:
    async with org_api() as running:
        yield running


async def test_setup_creates_customer_and_subscription_and_returns_them(api: OrgApi) -> None:
    created = await api.set_up()
    assert (created["org"]["org_id"], created["org"]["name"], created["org"]["email"]) == ("org_1", "Acme", "a@acme.io")
    assert created["org"]["metadata"]["created_by_user_id"] == "user_1"
    running = created["subscription"]
    assert running["external_id"] == f"org_1_starter_{NOW:.0f}"
    assert (running["plan_code"], running["status"], running["billing_time"]) == ("starter", "active", "anniversary")
    assert api.access.changes == [
        (None, {"name": "Acme", "email": "a@acme.io", "plan_code": "starter", "metadata": {}})
    ]


async def test_a_new_org_is_known_to_the_meter_at_once(api: OrgApi) -> None:
    """Usage that waits for the subscription must not wait for the next poll of Lago."""
    created = await api.set_up()
    record = api.records.all["org_1"]
    assert [period.external_id for period in record.periods] == [created["subscription"]["external_id"]]
    assert (record.name, record.email, record.plan, record.currency) == ("Acme", "a@acme.io", "starter", "USD")


async def test_a_repeated_setup_changes_nothing(api: OrgApi) -> None:
    first = await api.set_up()
    api.later(3600)
    assert await api.set_up(status=200) == first
    assert len(api.access.changes) == 1


async def test_twenty_concurrent_setups_create_one_customer_and_one_subscription(api: OrgApi) -> None:
    answers = await asyncio.gather(*(api.http.post(f"{ORGS}/org_1/setup", json=SETUP) for _ in range(20)))
    assert sorted(one.status_code for one in answers) == [200] * 19 + [201]
    assert len({one.text for one in answers}) == 1
    assert (await api.lago.get("/customers")).json()["meta"]["total_count"] == 1
    assert (await api.lago.get("/subscriptions")).json()["meta"]["total_count"] == 1


async def test_setup_with_another_plan_is_refused_because_it_may_repeat_an_old_request(api: OrgApi) -> None:
    await api.set_up()
    refused = await api.set_up("professional", 409)
    assert refused["reason"] == "other_plan"
    assert (await api.org("GET", "/subscription"))["plan_code"] == "starter"


async def test_setup_with_an_unknown_plan_creates_nothing(api: OrgApi) -> None:
    refused = await api.set_up("nope", 404)
    assert (refused["reason"], refused["detail"]) == (
        "plan_not_found",
        "Lago has no plan 'nope': GET /api/billing/plans lists its plans, `meterbridge lago setup` makes the usual ones",
    )
    assert (await api.lago.get("/customers")).json()["customers"] == []
    assert api.access.changes == []


async def test_if_the_audit_log_cannot_be_written_nothing_is_changed(api: OrgApi) -> None:
    api.access.away = True
    await api.set_up(status=503)
    assert (await api.lago.get("/customers")).json()["customers"] == []


async def test_a_setup_whose_record_was_not_stored_fails_and_repeating_it_succeeds(api: OrgApi) -> None:
    api.records.away = True
    assert (await api.set_up(status=503))["reason"] == "kafka_unavailable"
    api.records.away = False
    await api.set_up(status=201)
    assert (await api.lago.get("/subscriptions")).json()["meta"]["total_count"] == 1


async def test_a_subscription_is_shown(api: OrgApi) -> None:
    created = await api.set_up()
    assert await api.org("GET", "/subscription") == created["subscription"]


async def test_an_upgrade_applies_now_and_keeps_the_id(api: OrgApi) -> None:
    first = (await api.set_up())["subscription"]
    api.later(DAY)
    changed = await api.org("PUT", "/subscription", json={"plan_code": "professional"})
    assert changed["applies"] == "now"
    after = changed["subscription"]
    assert (after["external_id"], after["plan_code"], after["previous_plan_code"]) == (
        first["external_id"],
        "professional",
        "starter",
    )
    assert api.access.changes[-1] == (
        {"plan_code": "starter", "next_plan_code": None},
        {"plan_code": "professional", "next_plan_code": None},
    )
    record = api.records.all["org_1"]
    assert [(one.plan_code, one.terminated_at is None) for one in record.periods] == [
        ("starter", False),
        ("professional", True),
    ]
    assert record.periods[0].terminated_at == record.periods[1].started_at
    assert record.plan == "professional"


async def test_a_downgrade_waits_for_the_end_of_the_period_and_can_be_cancelled(api: OrgApi) -> None:
    await api.set_up("professional")
    changed = await api.org("PUT", "/subscription", json={"plan_code": "starter"})
    assert (changed["applies"], changed["subscription"]["plan_code"]) == ("at_period_end", "professional")
    assert changed["subscription"]["next_plan_code"] == "starter"
    assert changed["subscription"]["downgrade_plan_date"] == "2025-04-06"
    kept = await api.org("PUT", "/subscription", json={"plan_code": "professional"})
    assert (kept["applies"], kept["subscription"]["next_plan_code"]) == ("now", None)
    api.later(40 * DAY)
    assert (await api.org("GET", "/subscription"))["plan_code"] == "professional"


async def test_the_same_change_twice_is_one_change(api: OrgApi) -> None:
    await api.set_up("professional")
    for _ in range(2):
        changed = await api.org("PUT", "/subscription", json={"plan_code": "starter"})
    assert changed["subscription"]["next_plan_code"] == "starter"
    assert len(api.access.changes) == 2


async def test_the_end_of_a_subscription_is_known_to_lago_and_to_the_meter(api: OrgApi) -> None:
    created = (await api.set_up())["subscription"]
    api.later(DAY)
    ended = await api.org("DELETE", "/subscription")
    assert (ended["external_id"], ended["status"]) == (created["external_id"], "terminated")
    assert api.access.changes[-1] == ({"subscription": created["external_id"], "plan_code": "starter"}, None)
    [period] = api.records.all["org_1"].periods
    assert period.terminated_at == round((NOW + DAY) * 1_000_000)
    assert (await api.org("DELETE", "/subscription", 404))["reason"] == "no_subscription"
    assert (await api.org("GET", "/subscription", 404))["reason"] == "no_subscription"


async def test_an_org_may_start_again_under_its_id(api: OrgApi) -> None:
    created = (await api.set_up())["subscription"]
    api.later(DAY)
    await api.org("DELETE", "/subscription")
    api.later(DAY)
    again = (await api.set_up("professional"))["subscription"]
    assert (again["external_id"], again["plan_code"]) == (created["external_id"], "professional")
    assert len(api.records.all["org_1"].periods) == 2


@pytest.mark.parametrize(
    ("verb", "rest", "body"),
    [
        ("GET", "/subscription", None),
        ("PUT", "/subscription", {"plan_code": "starter"}),
        ("DELETE", "/subscription", None),
        ("GET", "/subscription/preview?plan_code=starter", None),
        ("GET", "/usage/current", None),
        ("GET", "/invoices", None),
        ("GET", "/dashboard", None),
        ("GET", "/limits", None),
        ("PUT", "/limits", {"limits": {}}),
        ("GET", "/portal", None),
        ("GET", "/checkout", None),
    ],
)
async def test_an_unknown_org_is_not_found(api: OrgApi, verb: str, rest: str, body: object) -> None:
    refused = await api.org(verb, rest, 404, json=body)
    assert refused["reason"] == "unknown_org"
    assert api.records.all == {}


async def test_every_request_about_another_keys_org_is_refused(api: OrgApi) -> None:
    await api.set_up()
    api.access.principal = Principal("other", frozenset({"*"}), frozenset({"org_2"}))
    for verb, rest in (("POST", "/setup"), ("PUT", "/subscription"), ("GET", "/dashboard"), ("GET", "/portal")):
        assert (await api.org(verb, rest, 403, json=SETUP))["reason"] == "other_org"
    body = {"external_id": "org_1", "name": "Mine now"}
    assert (await api.ask("POST", "/api/customers", 403, json=body))["reason"] == "other_org"
    await api.ask("GET", "/api/customers/org_1/invoices", 403)


@pytest.mark.parametrize("org", ['org_"quoted"', "org_ünïcode_組織", "org_a+b&c=d?e#f", "org_" + "x" * 251])
async def test_an_id_may_be_any_text_that_a_path_can_contain(api: OrgApi, org: str) -> None:
    path = quote(org, safe="")
    created = await api.set_up(org=path)
    assert created["org"]["org_id"] == org
    assert (await api.org("GET", "/subscription", org=path))["external_id"].startswith(org)
    assert (await api.org("PUT", "/subscription", org=path, json={"plan_code": "professional"}))["applies"] == "now"
    assert (await api.org("GET", "/dashboard", org=path))["missing"] == []
    assert (await api.org("GET", "/usage/current", org=path))["currency"] == "USD"
    assert (await api.ask("GET", f"/api/customers/{path}"))["external_id"] == org
    await api.org("DELETE", "/subscription", org=path)


async def test_a_new_org_id_with_a_dot_is_refused_because_lago_would_mistake_it(api: OrgApi) -> None:
    refused = await api.set_up(status=422, org="org_1.eu")
    assert refused["reason"] == "unsafe_id"
    assert (await api.lago.get("/customers")).json()["customers"] == []
    assert api.access.changes == []


@pytest.mark.parametrize("org", ["acme%20inc", "acme%2520inc", "%20acme", "acme%20", "acme%C2%A0inc", "100%25"])
async def test_a_new_org_id_that_was_encoded_by_mistake_is_refused(api: OrgApi, org: str) -> None:
    """Earlier `acme inc` became an org of its own, and mappings, which trim spaces, never named ` acme`."""
    refused = await api.set_up(status=422, org=org)
    assert refused["detail"] == (
        "the id of a new org has a space or a percent sign: use letters, digits, _, : and -"
    ) and (refused["reason"], api.access.changes) == ("unsafe_id", [])
    assert (await api.lago.get("/customers")).json()["customers"] == []


async def test_an_existing_customer_with_a_space_and_a_percent_sign_stays_an_org(api: OrgApi) -> None:
    await api.lago.save("/customers", "customer", external_id="acme inc%2F", name="Acme")
    path = quote("acme inc%2F", safe="")
    assert (await api.set_up(org=path))["org"]["name"] == "Acme"
    assert (await api.org("GET", "/subscription", org=path))["external_id"].startswith("acme inc%2F")


async def test_an_existing_customer_with_a_dot_is_shown_and_billed_as_itself(api: OrgApi) -> None:
    """In Lago's paths `a.b` means the customer `a`."""
    await api.lago.save("/customers", "customer", external_id="a", name="Another")
    await api.lago.save("/customers", "customer", external_id="a.b", name="Dotted")
    created = await api.set_up(org="a.b")
    assert (created["org"]["name"], created["subscription"]["plan_code"]) == ("Dotted", "starter")
    assert (await api.org("GET", "/subscription", org="a.b"))["external_id"].startswith("a.b_starter_")
    assert (await api.org("GET", "/invoices", org="a.b"))["invoices"] == []
    assert (await api.ask("GET", "/api/customers/a.b"))["name"] == "Dotted"
    page = await api.org("GET", "/dashboard", org="a.b")
    assert (page["org"]["name"], page["usage"]) == ("Dotted", None)
    assert page["missing"] == [{"part": "usage", "reason": "unsafe_id"}]
    for rest in ("/usage/current", "/portal", "/checkout"):
        assert (await api.org("GET", rest, 422, org="a.b"))["reason"] == "unsafe_id"


async def test_an_org_id_is_never_mistaken_for_a_plan(api: OrgApi) -> None:
    """A plan's limits are stored among the orgs' records, under an id that no org may have."""
    assert (await api.set_up(status=422, org="plan:starter"))["reason"] == "unsafe_id"
    assert (await api.org("PUT", "/limits", 422, org="plan:starter", json={"limits": {}}))["reason"] == "unsafe_id"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"plan_code": ""},
        {"plan_code": "starter", "email": "nobody"},
        {"plan_code": "starter", "billing_time": "weekly"},
        {"plan_code": "starter", "subscription_at": "tomorrow"},
        {"plan_code": "starter", "surprise": 1},
        {"plan_code": "a\0b"},
    ],
)
async def test_a_malformed_body_is_refused_with_its_field(api: OrgApi, body: dict[str, object]) -> None:
    refused = await api.org("POST", "/setup", 422, json=body)
    assert refused["reason"] == "invalid_fields"
    assert len(refused["errors"]) == 1
    assert (await api.lago.get("/customers")).json()["customers"] == []


async def test_a_subscription_may_start_in_the_past_or_later(api: OrgApi) -> None:
    past = SETUP | {"subscription_at": "2025-03-01T00:00:00Z"}
    created = await api.org("POST", "/setup", 201, json=past)
    assert created["subscription"]["started_at"] == "2025-03-01T00:00:00.000Z"
    later = await api.org("POST", "/setup", 201, org="org_2", json=SETUP | {"subscription_at": "2025-04-01"})
    assert later["subscription"]["status"] == "pending"
    again = await api.org("POST", "/setup", 200, org="org_2", json=SETUP | {"subscription_at": "2025-04-01"})
    assert again == later


@pytest.mark.parametrize(("billing_time", "first"), [("calendar", "2025-04-01"), ("anniversary", "2025-04-06")])
async def test_the_billing_time_decides_when_a_period_ends(api: OrgApi, billing_time: str, first: str) -> None:
    """Set up on 6 March: with the month, or a month later."""
    created = await api.org("POST", "/setup", 201, json=SETUP | {"billing_time": billing_time})
    assert created["subscription"]["billing_time"] == billing_time
    api.later(35 * DAY)
    [invoice] = (await api.org("GET", "/invoices", params={"links": "false"}))["invoices"]
    assert invoice["issuing_date"] == first


async def test_links_lead_to_lagos_pages(api: OrgApi) -> None:
    await api.set_up()
    portal = await api.org("GET", "/portal")
    assert (portal["url"].startswith("http"), portal["expires_in_s"]) == (True, 43200)
    refused = await api.org("GET", "/checkout", 422)
    assert refused["details"] == {"base": ["no_linked_payment_provider"]}
    by_stripe = {"payment_provider": "stripe", "payment_provider_code": "main"}
    await api.lago.save("/customers", "customer", external_id="org_1", billing_configuration=by_stripe)
    assert (await api.org("GET", "/checkout"))["url"].startswith("http")
    answer = await api.http.get(f"{ORGS}/org_1/portal")
    assert answer.headers["cache-control"] == "no-store"


async def test_an_unavailable_lago_gives_a_503_that_asks_for_a_retry(api: OrgApi) -> None:
    await api.lago.fault(kind="status", status=502, method="*", path="/api/v1")
    answer = await api.http.post(f"{ORGS}/org_1/setup", json=SETUP)
    assert (answer.status_code, answer.json()["reason"]) == (503, "http_502")
    assert int(answer.headers["retry-after"]) > 0
