"""Whose a request is, by what the service's own authentication has left in it.

Never by a header: whoever may write a header could let another org pay.
"""

from collections.abc import Mapping
from typing import Any

import msgspec


class CurrentOrg(msgspec.Struct, frozen=True):
    """The org that pays for a request, and who of it asks."""

    org_id: str
    user_id: str | None = None


def get_current_org(request: Any) -> CurrentOrg | None:
    """The org of a request's `user`; None where nobody is known.

    `user` is `request["user"]` of aiohttp, `request.state.user` of Starlette and FastAPI, or what Starlette's
    AuthenticationMiddleware leaves; a mapping or an object with `org_id`, and `id` or `user_id`.

    Args:
        request: aiohttp's, Starlette's, or an ASGI scope.
    """
    held = getattr(request, "scope", request)
    user = _of(_of(held, "state"), "user") or _of(held, "user")
    org_id = _of(user, "org_id")
    if org_id is None or not str(org_id).strip():
        return None
    user_id = _of(user, "id")
    if user_id is None:
        user_id = _of(user, "user_id")
    return CurrentOrg(str(org_id).strip(), None if user_id is None else str(user_id))


def _of(held: Any, name: str) -> Any:
    return held.get(name) if isinstance(held, Mapping) else getattr(held, name, None)
