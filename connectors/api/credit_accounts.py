"""Finds the account of a request, and checks whether the caller may see or change it.

| the caller | own account | another user's | an org's |
|---|---|---|---|
| a signed-in user without the scope | yes | 403 | 403 |
| holds the scope, for all orgs | yes | yes | yes |
| holds the scope, for some orgs | yes | 403 | these orgs' |

A user is not a part of an org here, so a credential for some orgs sees only its own user. The answer does not depend on
whether the account exists.
"""

from connectors.api.credit_models import ORG, USER
from connectors.http.endpoint import AuthorizedRequest, missing_scope, other_org
from connectors.http.own_user import check_acts_for_all
from connectors.http.problem import Problem

_NOT_OWN = "the account is not your own"


def account_of(authorized: AuthorizedRequest, scope: str, named: str | None, *, own: bool = True) -> str:
    """Return the account of the request.

    Args:
        scope: the scope that the caller needs for an account that is not its own.
        named: the account that the request names; None = none.
        own: a signed-in user needs no scope for their own account. False: the scope is needed for every account.

    Raises:
        Problem: 403 `missing_scope`, `other_org`, `other_user`; 422 `account_needed`: the request names no account, and
            the caller has no own account.
    """
    principal = authorized.principal
    mine = f"{USER}{principal.user}" if principal.user else None
    account = mine if named is None else named
    if account is None:
        raise Problem(
            422, "account_needed", "say whose credits: `account` is user:ID or org:ID, `user` is the id of a user"
        )
    if not own and not principal.may(scope):
        raise missing_scope(scope)
    if account == mine:
        return account
    if not account.startswith(ORG):
        check_acts_for_all(authorized, scope, _NOT_OWN)
    elif not principal.may(scope):
        raise missing_scope(scope, _NOT_OWN)
    elif not principal.may_see(account.removeprefix(ORG)):
        raise other_org()
    return account
