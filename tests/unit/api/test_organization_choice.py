"""Which Lago organisation a request is about, and that a credential for some orgs sees only organisations of these orgs."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from connectors.api.organization_choice import by_organization
from connectors.http.endpoint import AuthorizedRequest, Endpoint, Principal
from connectors.http.problem import Problem
from schemas.organizations import DEFAULT


def answering(name: str) -> Endpoint:
    async def plans(_: AuthorizedRequest) -> web.Response:
        return web.Response(text=f"plans of {name}")

    return Endpoint("GET", "/plans", "plans:read", "Plans.", plans, sees_to_orgs=True)


async def plans(orgs: frozenset[str] | None, query: str) -> str | None:
    [chosen] = by_organization(
        {DEFAULT: [answering("the default")], "eu": [answering("eu")]},
        lambda org: "eu" if org.startswith("eu::") else DEFAULT,
    )
    access: Any = None
    request = make_mocked_request("GET", f"/plans{query}")
    answer = await chosen.handler(AuthorizedRequest(request, Principal("key", orgs=orgs), access))
    assert isinstance(answer, web.Response)
    return answer.text


@pytest.mark.parametrize(
    ("orgs", "query", "seen"),
    [
        (None, "", "plans of the default"),
        (None, "?organization=eu", "plans of eu"),
        (frozenset({"acme"}), "", "plans of the default"),
        (frozenset({"acme"}), "?organization=default", "plans of the default"),
        (frozenset({"eu::acme"}), "?organization=eu", "plans of eu"),
        (frozenset({"acme", "eu::acme"}), "?organization=eu", "plans of eu"),
        (frozenset(), "", "plans of the default"),
    ],
)
async def test_an_organisation_is_seen_by_all_who_have_an_org_in_it(
    orgs: frozenset[str] | None, query: str, seen: str
) -> None:
    assert await plans(orgs, query) == seen


@pytest.mark.parametrize(
    ("orgs", "query"),
    [
        (frozenset({"acme"}), "?organization=eu"),
        (frozenset({"acme"}), "?organization=unknown"),
        (frozenset({"eu::acme"}), ""),
        (frozenset(), "?organization=eu"),
    ],
)
async def test_another_organisations_plans_are_not_shown(orgs: frozenset[str], query: str) -> None:
    """Earlier a key for one org could read the plans and prices of every organisation of Lago."""
    with pytest.raises(Problem) as refused:
        await plans(orgs, query)
    assert (refused.value.status, refused.value.reason) == (403, "other_org")


async def test_an_organisation_that_is_not_configured_is_refused() -> None:
    with pytest.raises(Problem) as refused:
        await plans(None, "?organization=unknown")
    assert (refused.value.status, refused.value.reason) == (422, "unknown_organization")
