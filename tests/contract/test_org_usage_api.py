"""Usage, invoices, limits and the dashboard of an org over HTTP; a part that Lago does not report is marked as missing."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from schemas.errors import Unavailable
from tests.support.org_api import OrgApi, org_api
from tests.support.sandbox import DAY, NOW, event

BY_STRIPE = {"payment_provider": "stripe", "payment_provider_code": "main"}
USAGE = {"event_code": "api_call", "transaction_id": "tx-1", "properties": {"tokens": 150, "model": "gpt-4"}}


@pytest.fixture
async def api() -> AsyncIterator[OrgApi]:
    async with org_api() as running:
        yield running


async def used(api: OrgApi, cents: str, number: str = "t1", **fields: Any) -> None:
    """Usage on the org's subscription that is already in Lago."""
    external_id = (await api.org("GET", "/subscription"))["external_id"]
    ids = {"external_subscription_id": external_id, "code": "ai_usage", "precise_total_amount_cents": cents}
    posted = await api.lago.post(event(number, timestamp=f"{api.clock.now:.3f}", **ids | fields))
    assert posted.status_code == 200


async def test_recorded_usage_is_answered_once_it_is_stored(api: OrgApi) -> None:
    answer = await api.org("POST", "/usage/record", 202, json=USAGE)
    assert answer == {"status": "accepted", "transaction_id": "tx-1", "warning": None}
    stored = api.usage.all["tx-1"]
    assert (stored.org_id, stored.code, stored.at_us) == ("org_1", "api_call", round(NOW * 1_000_000))
    assert stored.properties == {"tokens": "150", "model": "gpt-4", "org_id": "org_1"}


@pytest.mark.parametrize(
    ("timestamp", "words"),
    [
        ("2999-01-01", "`timestamp` is later than now, so the usage is billed as"),
        (1700000, "`timestamp` is more than a year ago"),
    ],
)
async def test_recorded_usage_of_a_time_that_no_usage_has_is_stored_with_a_warning(
    api: OrgApi, timestamp: Any, words: str
) -> None:
    answer = await api.org("POST", "/usage/record", 202, json=USAGE | {"timestamp": timestamp})
    assert answer["status"] == "accepted" and answer["warning"].startswith(words)


async def test_recorded_usage_that_no_plan_of_the_org_charges_is_stored_with_a_warning(api: OrgApi) -> None:
    """A misspelt code costs nothing at Lago, and a plan at a flat price charges no metric: so it is not refused. Lago is
    not asked, and may be away.
    """
    await api.set_up("ai_basic")
    await api.lago.fault(kind="status", status=500, path="/", method="*")
    says = "no plan of the org charges the metric {!r}, so Lago bills nothing for this event"
    for code, warning in (
        ("ai_usage", None),
        ("ai_usge", f"{says}: did you mean 'ai_usage'?"),
        ("zz", says),
    ):
        body = USAGE | {"event_code": code, "transaction_id": code}
        answer = await api.org("POST", "/usage/record", 202, json=body)
        assert answer["warning"] == (warning and warning.format(code))
    assert {"ai_usge", "zz"} <= api.usage.all.keys()
    [period] = api.records.all["org_1"].periods
    for periods in ((), (msgspec.structs.replace(period, charged=None),)):
        api.records.all["org_1"] = msgspec.structs.replace(api.records.all["org_1"], periods=periods)
        answer = await api.org("POST", "/usage/record", 202, json=USAGE | {"event_code": "zz"})
        assert answer["warning"] is None


async def test_recorded_usage_may_have_its_own_time(api: OrgApi) -> None:
    for number, moment in enumerate([1741219000, 1741219000.5, 1741219000500, "2025-03-05T23:56:40Z"]):
        await api.org("POST", "/usage/record", 202, json=USAGE | {"transaction_id": f"t{number}", "timestamp": moment})
    assert [one.at_us % 10**9 for one in api.usage.all.values()] == [0, 500_000, 500_000, 0]


async def test_usage_that_could_not_be_stored_is_answered_as_an_error(api: OrgApi) -> None:
    async def full(_: object) -> None:
        raise Unavailable("kafka_unavailable", "the broker is away")

    api.billing._usage = type("Full", (), {"record": staticmethod(full)})()
    answer = await api.http.post("/api/v1/billing/org/organizations/org_1/usage/record", json=USAGE)
    assert (answer.status_code, answer.json()["reason"]) == (503, "kafka_unavailable")
    assert "retry-after" in answer.headers


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"transaction_id": ""}, "invalid_fields"),
        ({"transaction_id": " "}, "bad_event"),
        ({"event_code": None}, "invalid_fields"),
        ({"properties": {"nested": {"a": 1}}}, "invalid_fields"),
        ({"timestamp": "yesterday"}, "bad_time"),
        ({"timestamp": True}, "invalid_fields"),
        ({"surprise": 1}, "invalid_fields"),
    ],
)
async def test_usage_that_can_never_be_billed_is_refused(api: OrgApi, changed: dict[str, Any], reason: str) -> None:
    assert (await api.org("POST", "/usage/record", 422, json=USAGE | changed))["reason"] == reason
    assert api.usage.all == {}


async def test_current_usage_is_lagos(api: OrgApi) -> None:
    created = await api.set_up("ai_basic")
    await used(api, "125.5")
    usage = await api.org("GET", "/usage/current")
    assert usage["external_subscription_id"] == created["subscription"]["external_id"]
    assert (usage["amount_cents"], usage["currency"]) == (126, "USD")
    [charge] = usage["charges"]
    assert (charge["code"], charge["units"], charge["events_count"], charge["amount_cents"]) == (
        "ai_usage",
        "820.0",
        1,
        126,
    )


async def test_invoices_are_listed_page_by_page_latest_first_with_their_links(api: OrgApi) -> None:
    await api.set_up()
    await api.lago.save("/customers", "customer", external_id="org_1", billing_configuration=BY_STRIPE)
    api.later(100 * DAY)
    first = await api.org("GET", "/invoices", params={"per_page": 2})
    assert [one["issuing_date"] for one in first["invoices"]] == ["2025-06-06", "2025-05-06"]
    assert first["meta"] == {"page": 1, "per_page": 2, "next_page": 2, "total_pages": 2, "total_count": 3}
    assert all(one["payment_url"].startswith("http") for one in first["invoices"])
    last = await api.org("GET", "/invoices", params={"per_page": 2, "page": 2})
    assert [one["total_amount_cents"] for one in last["invoices"]] == [1900]
    assert last["meta"]["next_page"] is None


async def test_a_pdf_is_created_at_the_first_request_and_returned_at_the_next(api: OrgApi) -> None:
    await api.set_up()
    api.later(31 * DAY)
    [before] = (await api.org("GET", "/invoices"))["invoices"]
    [after] = (await api.org("GET", "/invoices"))["invoices"]
    assert before["pdf_url"] is None
    assert after["pdf_url"].endswith(".pdf")
    assert (after["payment_url"], after["no_payment_url"]) == (None, "no_linked_payment_provider")


async def test_without_links_lago_gets_one_request(api: OrgApi) -> None:
    await api.set_up()
    api.later(31 * DAY)
    await api.lago.fault(kind="status", status=500, method="POST", path="/api/v1/invoices")
    [shown] = (await api.org("GET", "/invoices", params={"links": "false"}))["invoices"]
    assert (shown["payment_url"], shown["pdf_url"], shown["no_payment_url"]) == (None, None, None)
    [shown] = (await api.org("GET", "/invoices"))["invoices"]
    assert (shown["total_amount_cents"], shown["no_payment_url"]) == (1900, "http_500")


async def test_a_malformed_page_number_is_refused(api: OrgApi) -> None:
    for bad in ({"page": 0}, {"per_page": 101}, {"per_page": "all"}):
        assert (await api.org("GET", "/invoices", 422, params=bad))["reason"] == "invalid_fields"


async def test_the_payment_link_is_for_the_named_or_the_oldest_unpaid_invoice(api: OrgApi) -> None:
    await api.set_up()
    assert (await api.org("GET", "/payment", 404))["reason"] == "unknown_invoice"
    await api.lago.save("/customers", "customer", external_id="org_1", billing_configuration=BY_STRIPE)
    api.later(70 * DAY)
    newest, oldest = (await api.org("GET", "/invoices"))["invoices"]
    assert (await api.org("GET", "/payment"))["url"].endswith(oldest["lago_id"])
    named = await api.org("GET", "/payment", params={"invoice_id": newest["lago_id"]})
    assert named["url"].endswith(newest["lago_id"])


async def test_an_org_gets_no_link_to_another_orgs_invoice(api: OrgApi) -> None:
    await api.set_up(org="org_2")
    await api.set_up()
    api.later(31 * DAY)
    [other] = (await api.org("GET", "/invoices", org="org_2"))["invoices"]
    refused = await api.org("GET", "/payment", 404, params={"invoice_id": other["lago_id"]})
    assert refused["reason"] == "unknown_invoice"
    await api.org("GET", "/payment", 404, params={"invoice_id": "nope"})


async def test_the_dashboard_is_one_answer_with_everything_on_a_billing_page(api: OrgApi) -> None:
    await api.ask("PUT", "/api/v1/billing/plans/ai_basic/limits", json={"limits": {"tokens": 1000, "requests": 9}})
    created = await api.set_up("ai_basic")
    await api.org("PUT", "/limits", json={"limits": {"amount_cents": 100}})
    await used(api, "125.5")
    page = await api.org("GET", "/dashboard")
    assert (page["org"], page["subscription"]) == (created["org"], created["subscription"])
    assert (page["plan"]["code"], page["plan"]["charges"][0]["charge_model"]) == ("ai_basic", "dynamic")
    assert page["usage"] == await api.org("GET", "/usage/current")
    assert page["limits"] == [
        {"name": "amount_cents", "most": 100, "used": "126", "left": "0"},
        {"name": "requests", "most": 9, "used": None, "left": None},
        {"name": "tokens", "most": 1000, "used": "820", "left": "180"},
    ]
    assert (page["invoices"], page["missing"]) == ([], [])
    api.later(31 * DAY)
    page = await api.org("GET", "/dashboard")
    assert [one["total_amount_cents"] for one in page["invoices"]] == [126]


async def test_an_org_without_a_subscription_has_a_dashboard_without_missing_parts(api: OrgApi) -> None:
    await api.lago.save("/customers", "customer", external_id="org_1", name="Acme")
    page = await api.org("GET", "/dashboard")
    assert (page["org"]["name"], page["subscription"], page["plan"], page["usage"]) == ("Acme", None, None, None)
    assert (page["limits"], page["invoices"], page["missing"]) == ([], [], [])


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("/api/v1/invoices", ["invoices"]),
        ("/api/v1/customers", ["org", "usage"]),
        ("/api/v1/plans", ["plan"]),
        ("/api/v1/subscriptions", ["plan", "subscription", "usage"]),
        ("/api/v1", ["invoices", "org", "plan", "subscription", "usage"]),
    ],
)
async def test_a_part_that_lago_does_not_report_is_named_and_the_others_are_shown(
    api: OrgApi, path: str, missing: list[str]
) -> None:
    await api.set_up("ai_basic")
    await used(api, "125.5")
    api.later(3600)
    await api.lago.fault(kind="status", status=500, method="*", path=path)
    page = await api.org("GET", "/dashboard")
    assert [one["part"] for one in page["missing"]] == missing
    assert {one["reason"] for one in page["missing"]} == {"http_500"}
    for part in missing:
        assert part == "org" or page[part] is None
    assert page["org"]["name"] == "Acme", "our own record knows the name"
    assert page["limits"] == []


async def test_a_silent_lago_leaves_out_a_part_and_not_the_page(api: OrgApi) -> None:
    await api.set_up("ai_basic")
    await used(api, "125.5")
    await api.lago.fault(kind="slow", seconds=20, method="*", path="/api/v1/invoices")
    page = await api.org("GET", "/dashboard")  # a page that waited would have the invoices
    assert page["missing"] == [{"part": "invoices", "reason": "timeout"}]
    assert page["usage"]["amount_cents"] == 126


async def test_an_org_that_only_a_failing_lago_could_know_is_answered_503(api: OrgApi) -> None:
    await api.lago.fault(kind="status", status=500, method="*", path="/api/v1")
    assert (await api.org("GET", "/dashboard", 503))["reason"] == "http_500"


async def test_a_dashboard_is_at_most_some_seconds_old_and_never_older_than_our_own_changes(api: OrgApi) -> None:
    await api.set_up("ai_basic")
    await api.org("GET", "/dashboard")
    await used(api, "125.5")
    assert (await api.org("GET", "/dashboard"))["usage"]["amount_cents"] == 0
    api.later(6)
    assert (await api.org("GET", "/dashboard"))["usage"]["amount_cents"] == 126
    await api.org("PUT", "/subscription", json={"plan_code": "professional"})
    assert (await api.org("GET", "/dashboard"))["plan"]["code"] == "professional"


async def test_an_orgs_own_limits_override_its_plans(api: OrgApi) -> None:
    await api.set_up("ai_basic")
    await api.ask("PUT", "/api/v1/billing/plans/ai_basic/limits", json={"limits": {"tokens": 1000, "requests": 9}})
    assert (await api.ask("GET", "/api/v1/billing/plans/ai_basic/limits"))["limits"] == {"tokens": 1000, "requests": 9}
    result = await api.org("PUT", "/limits", json={"limits": {"tokens": 5}})
    assert result == {
        "org_id": "org_1",
        "plan_code": "ai_basic",
        "limits": {"tokens": 5},
        "plan_limits": {"tokens": 1000, "requests": 9},
        "effective": {"tokens": 5, "requests": 9},
    }
    assert await api.org("GET", "/limits") == result
    assert api.access.changes[-1] == ({"limits": {}}, {"limits": {"tokens": 5}})
    assert (await api.org("PUT", "/limits", json={"limits": {}}))["effective"] == {"tokens": 1000, "requests": 9}


async def test_limits_are_read_without_lago(api: OrgApi) -> None:
    await api.set_up("ai_basic")
    await api.org("PUT", "/limits", json={"limits": {"tokens": 5}})
    await api.lago.fault(kind="status", status=500, method="*", path="/api/v1")
    assert (await api.org("GET", "/limits"))["limits"] == {"tokens": 5}


async def test_limits_of_an_unknown_plan_are_not_stored(api: OrgApi) -> None:
    for verb in ("GET", "PUT"):
        refused = await api.ask(verb, "/api/v1/billing/plans/nope/limits", 404, json={"limits": {"tokens": 1}})
        assert refused["reason"] == "plan_not_found"
    assert api.records.all == {}


@pytest.mark.parametrize("limits", [{"tokens": -1}, {"tokens": 1.5}, {"tokens": "9"}, {f"l{n}": 1 for n in range(33)}])
async def test_a_limit_is_a_whole_number(api: OrgApi, limits: dict[str, Any]) -> None:
    await api.set_up("ai_basic")
    assert (await api.org("PUT", "/limits", 422, json={"limits": limits}))["reason"] == "invalid_fields"
    assert (await api.org("PUT", "/limits", 422, json={"limits": {"": 1}}))["reason"] == "bad_limit"


async def test_the_name_of_a_limit_is_bounded(api: OrgApi) -> None:
    answer = await api.http.put("/api/v1/billing/plans/ai_basic/limits", json={"limits": {"n" * 256: 1}})
    assert (answer.status_code, answer.json()["reason"]) == (422, "invalid_fields")
