"""Authenticates and authorises the requests of the management API.

| answer | reason | when |
|---|---|---|
| 401 | `unknown_token` | the request has no bearer token, or an unknown one |
| 403 | `missing_scope` | the credential does not hold the endpoint's scope |
| 403 | `other_org` | the credential is for other orgs; the answer is the same if the org does not exist |
| 429 | `too_many_requests` | too many requests (`API_RATE_LIMIT`, `AUTHORIZE_RATE_LIMIT`), or too many wrong credentials from one address |

429 is safe here. LiteLLM drops usage that is answered with 429, but it sends usage to the ingress, not to this API.
"""

import hmac
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from connectors.access.audit_writer import Attempt, Audit
from connectors.access.provider_keys.keys import shown_parts
from connectors.http.client_address import ClientAddressPolicy, source_of
from connectors.http.connections import admitted
from connectors.http.endpoint import Endpoint, Principal, missing_scope, other_org
from connectors.http.problem import Problem
from connectors.http.rate_limit import SenderRateLimiter
from connectors.http.request_limits import BAD_PATH, is_tricky
from connectors.telemetry.logs import REQUEST_ID

#: Reasons of a request whose path could be read as another path, by us or by Lago.
_TRICKS: Final = (BAD_PATH, "unsafe_id")
_PRINCIPAL: Final = web.RequestKey("who", Principal)

#: The same whether or not the server has a master key: callers need not know it, and its log says it to the operator.
_UNKNOWN: Final = (
    "the bearer token is unknown: send the LITELLM_MASTER_KEY of the server, if it has one, or a key of `meterbridge keys create`; "
    "if its master key is not set, the server's log says so at the start"
)

ANYBODY: Final = Principal("anybody")
#: Wrong credentials per second and source.
WRONG_PER_S: Final = 10.0
#: Lago's API key is accepted on these paths and below them.
LAGO_PATHS: Final = ("/api/customers", "/api/billing")


class Credentials(Protocol):
    """One kind of credential."""

    async def principal(self, token: str, endpoint: Endpoint) -> Principal | None:
        """Return the caller with this token; None = no credential of this kind. Raises: Unavailable: this cannot be
        checked now.
        """


class FixedKeys:
    """The keys of the environment. The master key allows everything, Lago's key the endpoints that have Lago's form.

    Args:
        master, lago: None = there is no such key.
    """

    def __init__(self, master: str | None, lago: str | None) -> None:
        self._master = (master or "").encode()
        self._lago = (lago or "").encode()

    async def principal(self, token: str, endpoint: Endpoint) -> Principal | None:
        """Compare the token; every comparison with a wrong token takes the same time."""
        given = token.encode("utf-8", "surrogateescape")
        is_master, is_lago = (hmac.compare_digest(given, key) and bool(key) for key in (self._master, self._lago))
        if is_master:
            return Principal("master key", frozenset({"*"}))
        if is_lago:
            below = any(endpoint.path == path or endpoint.path.startswith(f"{path}/") for path in LAGO_PATHS)
            return Principal("lago key", frozenset({"*"} if below else ()))
        return None


class Authorizer:
    """`connectors.http.endpoint.Access`.

    Args:
        kinds: kinds of credentials, tried in this order.
        origins: finds the client's address behind trusted proxies.
        per_second: limit of requests for one credential; 0 = no limit.
        calls_per_second: the same for requests to endpoints that are `per_call`, which are counted separately.
        monotonic: seconds.
    """

    def __init__(
        self,
        kinds: Sequence[Credentials],
        audit: Audit,
        origins: ClientAddressPolicy,
        per_second: float,
        monotonic: Callable[[], float],
        calls_per_second: float = 0,
    ) -> None:
        self._kinds = kinds
        self._audit = audit
        self._origins = origins
        self._pace = SenderRateLimiter(per_second, monotonic) if per_second else None
        self._calls_pace = SenderRateLimiter(calls_per_second, monotonic) if calls_per_second else None
        self._wrong = SenderRateLimiter(WRONG_PER_S, monotonic)

    async def admit(self, request: web.Request, endpoint: Endpoint) -> Principal:
        """Return the caller. Raises: Problem: see the table at the top of this module."""
        if not endpoint.scope:
            return ANYBODY
        principal = request[_PRINCIPAL] = await self._identified(request, endpoint)
        admitted(request)
        pace, limit = (
            (self._calls_pace, "AUTHORIZE_RATE_LIMIT") if endpoint.per_call else (self._pace, "API_RATE_LIMIT")
        )
        if pace is not None and (wait_s := pace.wait_s(principal.actor)):
            raise _too_often(f"this credential sends more requests than {limit}", wait_s)
        if not endpoint.admits(principal):
            raise missing_scope(endpoint.scope)
        if not _is_for(principal, request, endpoint):
            raise other_org()
        return principal

    async def changing(self, principal: Principal, request: web.Request, before: Any, after: Any) -> None:
        """Write the line of a change into the audit log; see `Audit.changing`."""
        await self._audit.changing(self._attempt(principal, request), before, after)

    def refused(self, request: web.Request, problem: Problem) -> None:
        """Write a line into the audit log if the caller was not allowed to do this, or sent a deceptive path."""
        principal: Principal | None = request.get(_PRINCIPAL)
        wrong = problem.status in (401, 403, 413) or problem.reason in _TRICKS
        if wrong or (problem.status == 429 and principal is None):
            self._audit.refused(self._attempt(principal, request), problem.reason)

    @web.middleware
    async def watching(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Middleware that answers `bad_path` instead of 404 to a deceptive path, and writes it into the audit log."""
        try:
            return await handler(request)
        except web.HTTPNotFound:
            if not is_tricky(request.raw_path):
                raise
        problem = Problem(400, BAD_PATH, "the path contains dot segments, or an encoded separator or control character")
        self.refused(request, problem)
        raise problem

    async def _identified(self, request: web.Request, endpoint: Endpoint) -> Principal:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        detail = "no bearer token: send `Authorization: Bearer <key>`"
        if scheme.lower() == "bearer" and (token := token.strip()):
            detail = _UNKNOWN
            try:
                for kind in self._kinds:
                    if (principal := await kind.principal(token, endpoint)) is not None:
                        return principal
            except Problem:  # an expired token also counts as wrong
                self._count_wrong(request)
                raise
        self._count_wrong(request)
        raise Problem(401, "unknown_token", detail, {"WWW-Authenticate": "Bearer"})

    def _count_wrong(self, request: web.Request) -> None:
        if wait_s := self._wrong.wait_s(source_of(self._origins, request)):
            raise _too_often("too many requests from this address have an unknown credential", wait_s)

    def _attempt(self, principal: Principal | None, request: web.Request) -> Attempt:
        """Name the route, and its parameters only if the caller is known: an unknown caller may have put a key into the
        path.
        """
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "nowhere"
        parts = shown_parts(request.match_info) if principal is not None else {}
        actor = principal.actor if principal is not None else ""
        return Attempt(
            actor, f"{request.method} {path}", parts, source_of(self._origins, request), REQUEST_ID.get() or ""
        )


def _is_for(principal: Principal, request: web.Request, endpoint: Endpoint) -> bool:
    if endpoint.org:
        return principal.may_see(request.match_info[endpoint.org])
    return principal.orgs is None or endpoint.sees_to_orgs


def _too_often(sentence: str, wait_s: float) -> Problem:
    return Problem(429, "too_many_requests", sentence, {"Retry-After": str(ceil(wait_s))})
