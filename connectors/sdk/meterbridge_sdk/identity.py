"""Finds the org of a request from the result of the service's own authentication.

It never reads a header, because a client could write the id of another org into it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CurrentOrg:
    """The org that pays for a request, and its user who sent it; `user_id` None = not known."""

    org_id: str
    user_id: str | None = None


#: Gives the org of a request, or None for a request that is not billed. The request is aiohttp's, or an ASGI scope.
IdentifyOrg = Callable[[Any], CurrentOrg | None]


def get_current_org(request: Any) -> CurrentOrg | None:
    """Return the org of a request's `user`.

    The user is `request["user"]` on aiohttp, `request.state.user` on Starlette and FastAPI, or what Starlette's
    `AuthenticationMiddleware` sets. It is a mapping or an object with `org_id`, and with `id` or `user_id`.

    Args:
        request: aiohttp's or Starlette's request, or an ASGI scope.

    Returns:
        None if the request has no user, or its user has no org.
    """
    scope = getattr(request, "scope", request)
    user = member(member(scope, "state"), "user") or member(scope, "user")
    org_id = member(user, "org_id")
    if org_id is None or not str(org_id).strip():
        return None
    user_id = member(user, "id")
    if user_id is None:
        user_id = member(user, "user_id")
    return CurrentOrg(str(org_id).strip(), None if user_id is None else str(user_id))


def member(holder: Any, name: str) -> Any:
    """Return a member of a mapping or an object; None = it has none."""
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
