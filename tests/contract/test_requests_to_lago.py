"""How often the API asks Lago for one request of its own, and which requests it sends together.

Lago holds each round back until all of its requests have come: a page that sent them one after another would be incomplete.
"""

from collections.abc import AsyncIterator

import pytest

from connectors.billing.dashboard import KEPT_S
from tests.support.org_api import ORGS, OrgApi, org_api

CUSTOMER, SUBSCRIPTIONS, INVOICES = "GET /customers/org_1", "GET /subscriptions", "GET /invoices"
USAGE, PLAN = "GET /customers/org_1/current_usage", "GET /plans/ai_basic"


@pytest.fixture
async def api() -> AsyncIterator[OrgApi]:
    async with org_api() as running:
        await running.set_up("ai_basic")
        running.later(3600)
        yield running


async def test_a_dashboard_asks_for_everything_that_is_known_at_once_and_then_for_what_needs_the_subscription(
    api: OrgApi,
) -> None:
    api.lago.asked.expect(3, 2)
    page = await api.org("GET", "/dashboard")
    assert page["missing"] == [], "requests of a round were not sent together"
    requests = api.lago.asked.requests
    assert [sorted(requests[:3]), sorted(requests[3:])] == [[CUSTOMER, INVOICES, SUBSCRIPTIONS], [USAGE, PLAN]]


async def test_a_dashboard_that_is_opened_again_asks_only_for_what_has_expired(api: OrgApi) -> None:
    await api.org("GET", "/dashboard")
    api.lago.asked.expect()
    await api.org("GET", "/dashboard")
    assert api.lago.asked.requests == []
    api.later(KEPT_S)
    api.lago.asked.expect(2, 1)
    page = await api.org("GET", "/dashboard")
    assert page["missing"] == []
    assert api.lago.asked.in_order() == [CUSTOMER, USAGE, INVOICES], "the plan and the subscription are still known"


async def test_a_customer_and_its_subscriptions_are_asked_for_together(api: OrgApi) -> None:
    api.lago.asked.expect(2)
    customer = await api.ask("GET", "/api/customers/org_1")
    assert customer["subscription"]["plan_code"] == "ai_basic"
    assert api.lago.asked.in_order() == [CUSTOMER, SUBSCRIPTIONS]


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/usage/current", [USAGE]), ("/invoices?links=false", [INVOICES]), ("/limits", [])],
)
async def test_a_request_asks_lago_once_and_one_for_our_own_tables_never(
    api: OrgApi, path: str, asked: list[str]
) -> None:
    await api.org("GET", "/subscription")
    api.lago.asked.expect()
    assert (await api.http.get(f"{ORGS}/org_1{path}")).status_code == 200
    assert api.lago.asked.requests == asked
