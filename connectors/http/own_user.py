"""Which user a request is about: a signed-in user asks about itself without a scope, and others need the scope."""

from connectors.http.endpoint import AuthorizedRequest
from connectors.http.problem import Problem


def acting_user(authorized: AuthorizedRequest, scope: str, given: str | None) -> str:
    """The user that a request is about; for endpoints with `own_without_scope`.

    Args:
        scope: what a caller needs to act for other users.
        given: the user that the request names; None = none.

    Raises:
        Problem: 403 `other_user`: the caller may not act for this user; 422 `user_id_needed`: no user is named.
    """
    user = authorized.principal.user
    if user and given in (None, user):
        return user
    if not acts_for_all(authorized, scope):
        raise Problem(403, "other_user", "only a credential for all users may act for this one")
    if given is None:
        raise Problem(422, "user_id_needed", "user_id must say for which user")
    return given


def acts_for_all(authorized: AuthorizedRequest, scope: str) -> bool:
    """Whether the caller may act for every user: it holds the scope, and is not limited to some orgs."""
    return authorized.principal.may(scope) and authorized.principal.orgs is None
