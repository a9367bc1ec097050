"""Finds the user of a request. A signed-in user may read its own data without a scope; other callers need the scope."""

from functools import partial

from connectors.http.endpoint import AuthorizedRequest, endpoint, missing_scope
from connectors.http.problem import Problem

#: Declares an endpoint for users' own data: a signed-in user needs no scope, and the handler checks who owns the data.
own_endpoint = partial(endpoint, sees_to_orgs=True, own_without_scope=True)


def acting_user(authorized: AuthorizedRequest, scope: str, given: str | None) -> str:
    """Return the user that a request is about; for endpoints with `own_without_scope`.

    Args:
        scope: what a caller needs to act for other users.
        given: the user that the request names; None = none.

    Raises:
        Problem: 403 `missing_scope`, `other_user`: the caller may not act for this user; 422 `user_id_needed`: no user is named.
    """
    user = authorized.principal.user
    if user and given in (None, user):
        return user
    check_acts_for_all(authorized, scope, "the user is not you")
    if given is None:
        raise Problem(422, "user_id_needed", "user_id must say for which user")
    return given


def check_acts_for_all(authorized: AuthorizedRequest, scope: str, because: str) -> None:
    """Refuse a caller that may not act for every user.

    Raises: Problem: 403 `missing_scope`, with `because`; 403 `other_user`: it is limited to some orgs, and users do not
    belong to orgs.
    """
    if not authorized.principal.may(scope):
        raise missing_scope(scope, because)
    if authorized.principal.orgs is not None:
        raise Problem(403, "other_user", "this credential is for orgs, not for their users")


def acts_for_all(authorized: AuthorizedRequest, scope: str) -> bool:
    """Return whether the caller may act for every user: it holds the scope, and is not limited to some orgs."""
    return authorized.principal.may(scope) and authorized.principal.orgs is None
