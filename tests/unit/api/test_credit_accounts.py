"""Whose credits a request is about: one's own without a scope, everybody else's by scope and orgs."""

from typing import Any, cast

import pytest

from connectors.api.credit_accounts import account_of
from connectors.http.endpoint import AuthorizedRequest, Principal
from connectors.http.problem import Problem

ADA = Principal("user ada", user="ada")
ALL = frozenset({"credits:read"})
CLERK = Principal("user clerk", ALL, user="clerk")
KEY = Principal("key", ALL)
OF_A = Principal("key a", ALL, frozenset({"org_a"}))


def asked(principal: Principal, named: str | None, **more: Any) -> tuple[int, str]:
    request = cast("AuthorizedRequest", AuthorizedRequest(cast("Any", None), principal, cast("Any", None)))
    try:
        return 200, account_of(request, "credits:read", named, **more)
    except Problem as problem:
        return problem.status, problem.reason


@pytest.mark.parametrize(
    ("principal", "named", "expected"),
    [
        (ADA, None, (200, "user:ada")),
        (ADA, "user:ada", (200, "user:ada")),
        (ADA, "user:Ada", (403, "missing_scope")),
        (ADA, "user:ada ", (403, "missing_scope")),
        (ADA, "user:bob", (403, "missing_scope")),
        (ADA, "org:ada", (403, "missing_scope")),
        (CLERK, None, (200, "user:clerk")),
        (CLERK, "user:ada", (200, "user:ada")),
        (KEY, None, (422, "account_needed")),
        (KEY, "org:org_a", (200, "org:org_a")),
        (OF_A, "org:org_a", (200, "org:org_a")),
        (OF_A, "org:org_b", (403, "other_org")),
        (OF_A, "user:ada", (403, "other_user")),
        (Principal("nothing"), "user:", (403, "missing_scope")),
        (Principal("nothing"), None, (422, "account_needed")),
    ],
)
def test_an_account_is_ones_own_or_needs_scope_and_org(
    principal: Principal, named: str | None, expected: tuple[int, str]
) -> None:
    assert asked(principal, named) == expected


def test_what_moves_credits_needs_the_scope_also_for_ones_own() -> None:
    assert asked(ADA, None, own=False) == (403, "missing_scope")
    assert asked(CLERK, None, own=False) == (200, "user:clerk")
