"""Codes and ids with signs that mean something in a URL reach Lago as they are."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from tests.contract.test_customers_api import ACME, PREMIUM
from tests.support.org_api import OrgApi, org_api

ODD = ["{", "{x}", "a/b", "../x", "%2e%2e", "a?b#c", "é 😀"]


@pytest.fixture
async def api() -> AsyncIterator[OrgApi]:
    async with org_api() as running:
        yield running


async def test_a_plan_with_an_odd_code_is_created_once(api: OrgApi) -> None:
    """With braces the answer was 503, because the path of the plan was none for the sandbox."""
    for code in ODD:
        body = PREMIUM | {"code": code}
        created = await api.ask("POST", "/api/billing/plans", 201, json=body)
        assert created["code"] == code
        assert await api.ask("POST", "/api/billing/plans", 200, json=body) == created


async def test_a_customer_with_an_odd_id_is_found_under_its_path(api: OrgApi) -> None:
    """With braces the answer was 404 after the customer was created."""
    for external_id in ("{x}", "a/b", "é😀"):
        created = await api.ask("POST", "/api/customers", 201, json=ACME | {"external_id": external_id})
        assert created["external_id"] == external_id
        assert await api.ask("GET", f"/api/customers/{quote(external_id, safe='')}") == created
