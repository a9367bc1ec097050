"""Who may come in at the management API: a known credential, with the endpoint's scope, for an org of theirs.

| answer | reason | when |
|---|---|---|
| 401 | `unknown_token` | no bearer token, or none that is known |
| 403 | `missing_scope` | it does not hold the endpoint's scope |
| 403 | `other_org` | it is for other orgs; the same whether or not there is such an org |
| 429 | `too_many_requests` | more requests than `API_RATE_LIMIT`, or more wrong credentials from one address |

Here 429 is right: those who ask are people and services. LiteLLM, which drops what a 429 answers, asks elsewhere.
"""

import hmac
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_network
from math import ceil
from typing import Any, Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from connectors.api.change_log import Attempt, Audit
from connectors.http.client_address import ClientAddressPolicy
from connectors.http.connections import admitted
from connectors.http.endpoint import Endpoint, Principal, missing_scope, other_org
from connectors.http.problem import Problem
from connectors.http.rate_limit import SenderRateLimiter
from connectors.http.request_limits import BAD_PATH, is_tricky
from connectors.telemetry.logs import REQUEST_ID

#: A path that means another one, to us or to Lago.
_TRICKS: Final = (BAD_PATH, "unsafe_id")
_WHO: Final = web.RequestKey("who", Principal)

ANYBODY: Final = Principal("anybody")
#: Credentials nobody knew, a second and address.
WRONG_PER_S: Final = 10.0
#: Where Lago's key is taken, and paths below.
LAGO_PATHS: Final = ("/api/customers", "/api/billing")


class Credentials(Protocol):
    """One kind of credential."""

    async def who(self, token: str, endpoint: Endpoint) -> Principal | None:
        """Whose it is; None = it is none of these. Raises: Unavailable: it cannot be known now."""


class FixedKeys:
    """The keys of the environment: the master key may do everything, Lago's key what its own API would allow.

    Args:
        master, lago: None = nobody has it.
    """

    def __init__(self, master: str | None, lago: str | None) -> None:
        self._master = (master or "").encode()
        self._lago = (lago or "").encode()

    async def who(self, token: str, endpoint: Endpoint) -> Principal | None:
        """Compares in the same time whatever is wrong."""
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
        kinds: asked in this order.
        origins: finds the client's address behind trusted proxies.
        per_second: requests of one credential; 0 = any number.
        monotonic: seconds.
    """

    def __init__(
        self,
        kinds: Sequence[Credentials],
        audit: Audit,
        origins: ClientAddressPolicy,
        per_second: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._kinds = kinds
        self._audit = audit
        self._origins = origins
        self._pace = SenderRateLimiter(per_second, monotonic) if per_second else None
        self._wrong = SenderRateLimiter(WRONG_PER_S, monotonic)

    async def admit(self, request: web.Request, endpoint: Endpoint) -> Principal:
        """See the table above."""
        if not endpoint.scope:
            return ANYBODY
        who = request[_WHO] = await self._identified(request, endpoint)
        admitted(request)
        if self._pace is not None and (wait_s := self._pace.wait_s(who.actor)):
            raise _too_often("this credential asks more often than API_RATE_LIMIT", wait_s)
        if not who.may(endpoint.scope):
            raise missing_scope(endpoint.scope)
        if not _is_for(who, request, endpoint):
            raise other_org()
        return who

    async def changing(self, who: Principal, request: web.Request, before: Any, after: Any) -> None:
        """See `Audit.changing`."""
        await self._audit.changing(self._attempt(who, request), before, after)

    def refused(self, request: web.Request, problem: Problem) -> None:
        """Who tried what they may not, or a trick, has a line in the audit log; other mistakes have none."""
        who: Principal | None = request.get(_WHO)
        wrong = problem.status in (401, 403, 413) or problem.reason in _TRICKS
        if wrong or (problem.status == 429 and who is None):
            self._audit.refused(self._attempt(who, request), problem.reason)

    @web.middleware
    async def watching(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A path that leads nowhere by a trick is `bad_path`, and noted."""
        try:
            return await handler(request)
        except web.HTTPNotFound:
            if not is_tricky(request.raw_path):
                raise
        problem = Problem(400, BAD_PATH, "the path climbs, or hides a separator or a control character")
        self.refused(request, problem)
        raise problem

    async def _identified(self, request: web.Request, endpoint: Endpoint) -> Principal:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and (token := token.strip()):
            try:
                for kind in self._kinds:
                    if (who := await kind.who(token, endpoint)) is not None:
                        return who
            except Problem:  # it was right once
                self._count_wrong(request)
                raise
        self._count_wrong(request)
        raise Problem(401, "unknown_token", "the bearer token is not known here", {"WWW-Authenticate": "Bearer"})

    def _count_wrong(self, request: web.Request) -> None:
        if wait_s := self._wrong.wait_s(self._source(request)):
            raise _too_often("too many requests from this address name no known credential", wait_s)

    def _attempt(self, who: Principal | None, request: web.Request) -> Attempt:
        """Told is the route, and its parts only of somebody known: a key may stand in a path by mistake."""
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "nowhere"
        parts = dict(request.match_info) if who is not None else {}
        actor = who.actor if who is not None else ""
        return Attempt(actor, f"{request.method} {path}", parts, self._source(request), REQUEST_ID.get() or "")

    def _source(self, request: web.Request) -> str:
        """The address; of IPv6 its network, for anybody has 2^64 of them."""
        address = self._origins.origin(request.remote, request.headers.getall("X-Forwarded-For", ()))
        if isinstance(address, IPv6Address):
            return str(ip_network((address, 64), strict=False))
        return str(address or "")


def _is_for(who: Principal, request: web.Request, endpoint: Endpoint) -> bool:
    if endpoint.org:
        return who.may_see(request.match_info[endpoint.org])
    return who.orgs is None or endpoint.sees_to_orgs


def _too_often(sentence: str, wait_s: float) -> Problem:
    return Problem(429, "too_many_requests", sentence, {"Retry-After": str(ceil(wait_s))})
