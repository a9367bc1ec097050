"""Access to credit accounts: one's own account needs no scope, every other one needs a scope and the org."""

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


def answer_to(principal: Principal, named: str | None, **more: Any) -> tuple[int, str]:
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
def test_an_own_account_needs_no_scope_and_another_needs_scope_and_org(
    principal: Principal, named: str | None, expected: tuple[int, str]
) -> None:
    assert answer_to(principal, named) == expected


def test_moving_credits_needs_the_scope_also_for_an_own_account() -> None:
    assert answer_to(ADA, None, own=False) == (403, "missing_scope")
    assert answer_to(CLERK, None, own=False) == (200, "user:clerk")
