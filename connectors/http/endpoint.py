"""Declares each endpoint of the management API once: its request, its responses and the scope that it needs.

The routes and the OpenAPI document are both made from one list of endpoints. A handler gets an `AuthorizedRequest` and
returns the response. The errors that a handler raises become responses in error_answers.py, in the same way for all endpoints.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog
from aiohttp import web
from pydantic import BaseModel

from connectors.http.error_answers import as_problem
from connectors.http.problem import Problem
from connectors.http.request_limits import MAX_BODY, body_of, check_parts
from connectors.http.request_models import NothingAsked, parsed, query_of
from schemas.errors import LedgerBroken, MeterbridgeError, TopicProblem
from streams.core.mapping.customer_prefixes import may_adopt

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller of a request.

    Fields:
        actor: the caller's name in the audit log; it is not secret.
        scopes: what the caller may do; `*` allows everything.
        orgs: the only orgs that the caller may see or change; None = all orgs.
        until: timezone-aware; an API key that the caller makes expires at this moment or before; None = no such limit.
        prefixes: the caller may map LiteLLM customers whose ids begin with one of these; None: see
            `streams.core.mapping.customer_prefixes`.
        user: the id of the user who is signed in at the identity provider (`OIDC_USER_CLAIM`); `""` = the caller is no user.
    """

    actor: str
    scopes: frozenset[str] = frozenset()
    orgs: frozenset[str] | None = None
    until: datetime | None = None
    prefixes: frozenset[str] | None = None
    user: str = ""

    def may(self, scope: str) -> bool:
        """Return whether the caller holds the scope."""
        return scope in self.scopes or "*" in self.scopes

    def may_see(self, org_id: str) -> bool:
        """Return whether the caller may see the org."""
        return self.orgs is None or org_id in self.orgs

    def may_adopt(self, customer_id: str) -> bool:
        """Return whether the caller may map a LiteLLM customer that none of the caller's orgs pays for yet."""
        return may_adopt(self.orgs, self.prefixes, customer_id)


class Access(Protocol):
    """Authenticates requests, and writes the audit log."""

    async def admit(self, request: web.Request, endpoint: "Endpoint") -> Principal:
        """Return the caller, if it holds the endpoint's scope and may see the org in the path. Raises: Problem 401,
        403, 429.
        """

    async def changing(self, principal: Principal, request: web.Request, before: Any, after: Any) -> None:
        """Write a line into the audit log; it is durable on return. Raises: Unavailable."""

    def refused(self, request: web.Request, problem: Problem) -> None:
        """Register that the request is answered with this problem."""


@dataclass(slots=True)
class AuthorizedRequest:
    """A request that was authenticated and authorised.

    Fields:
        body, query: instances of the endpoint's models; None if the endpoint has no such model.
    """

    request: web.Request
    principal: Principal
    access: Access
    body: Any = None
    query: Any = None

    def part(self, name: str) -> str:
        """Return the percent-decoded value of a path parameter."""
        return self.request.match_info[name]

    def for_org(self, org_id: str) -> str:
        """Returns `org_id` if the caller may see it; for endpoints with `sees_to_orgs`. Raises: Problem 403 `other_org`."""
        if not self.principal.may_see(org_id):
            raise other_org()
        return org_id

    async def changing(self, before: Any, after: Any) -> None:
        """Write the state before and after a change into the audit log. A handler calls it before the change has any effect.

        Args:
            before, after: stored as JSON, so they must not hold a secret; None = nothing exists. Equal values write no line.

        Raises:
            Unavailable: the line could not be written, so the handler must not change anything.
        """
        if before != after:
            await self.access.changing(self.principal, self.request, before, after)

    async def handing_out(self, what: str, **more: str) -> None:
        """Write into the audit log that the caller gets a link that gives power over the org's money, never the link itself.

        Raises:
            Unavailable: the line could not be written, so the handler must not answer with the link.
        """
        await self.access.changing(self.principal, self.request, None, {"handed_out": what, **more})


Handler = Callable[[AuthorizedRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method on one path.

    Fields:
        scope: that the caller must hold; `""` = no credential is needed.
        summary: one sentence for the OpenAPI document.
        body, query: models. A query parameter that the model does not have is refused, unless the endpoint needs no
            credential: whoever calls that one may be given an address with parameters of its own.
        answers: the model of the response by status; None = no body, or a body that is not JSON.
        refuses: by status, the reasons of docs/errors-api.md that this endpoint has beside those that all have in common.
        org: name of the path parameter that is an org's id. A caller that may not see that org is refused.
        sees_to_orgs: the path has no such parameter, and the handler itself shows and changes only orgs that
            `AuthorizedRequest.principal` may see (`AuthorizedRequest.for_org`). If neither `org` nor this is set, only
            callers that may see all orgs are admitted.
        any_text: path parameters that may hold any text, as LiteLLM's customer ids do. All other parameters refuse
            slashes, control characters, values that consist only of dots, and more than 255 characters.
        max_bytes: limit of a body that has a model; a larger one is answered with 413.
        also: further scopes that some requests need, and for what.
        hands_out: the part of the response that gives power over the org's money, e.g. `a link to pay by`. The handler must
            call `AuthorizedRequest.handing_out` before it answers.
        own_without_scope: a signed-in user needs no scope here. Then the handler itself checks the scope for everything
            that is not the user's own.
        per_call: it is requested for each call of an LLM, so AUTHORIZE_RATE_LIMIT applies instead of API_RATE_LIMIT.
        also_csv: a response with 200 is CSV if the caller asks for CSV.
    """

    method: str
    path: str
    scope: str
    summary: str
    handler: Handler
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    answers: Mapping[int, type[BaseModel] | None] = field(default_factory=dict)
    refuses: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    org: str = ""
    sees_to_orgs: bool = False
    any_text: tuple[str, ...] = ()
    max_bytes: int = MAX_BODY
    also: Mapping[str, str] = field(default_factory=dict)
    hands_out: str = ""
    own_without_scope: bool = False
    also_csv: bool = False
    per_call: bool = False

    def admits(self, principal: Principal) -> bool:
        """Return whether the caller holds the scope, or needs none because it is a signed-in user."""
        return principal.may(self.scope) or (self.own_without_scope and bool(principal.user))


_Method = TypeVar("_Method", bound=Callable[..., Awaitable[web.StreamResponse]])


def endpoint(method: str, path: str, scope: str, **fields: Any) -> Callable[[_Method], _Method]:
    """Declare a method of a class as the handler of an endpoint; the first line of its docstring is the summary.

    A handler that changes something calls `AuthorizedRequest.changing` first.

    Args:
        fields: the other fields of `Endpoint`. `org` is `org_id` by default if the path has that parameter.
    """

    guarded: dict[str, Any] = {"org": "org_id"} if "{org_id}" in path else {}

    def declare(handler: _Method) -> _Method:
        summary = (handler.__doc__ or "").partition("\n")[0]
        handler.__dict__["endpoint"] = partial(Endpoint, method, path, scope, summary, **guarded, **fields)
        return handler

    return declare


def endpoints_of(handlers: object) -> list[Endpoint]:
    """Return the endpoints that the methods of an object declare, in the order of the source."""
    declared = [(name, vars(member)["endpoint"]) for name, member in vars(type(handlers)).items() if _declares(member)]
    return [make(handler=getattr(handlers, name)) for name, make in declared]


def _declares(member: object) -> bool:
    return "endpoint" in getattr(member, "__dict__", ())


def routes_of(endpoints: Iterable[Endpoint], access: Access) -> list[web.RouteDef]:
    """Return a route for each endpoint; `access` checks every request."""
    return [web.route(endpoint.method, endpoint.path, _guarded(endpoint, access)) for endpoint in endpoints]


def missing_scope(scope: str, because: str = "") -> Problem:
    """Return 403; the response names the missing scope."""
    return Problem(403, "missing_scope", f"this needs the scope {scope}" + (f": {because}" if because else ""))


def other_org() -> Problem:
    """Return 403, whether or not the org exists: the API does not look it up."""
    return Problem(403, "other_org", "this credential is for other orgs")


def _guarded(endpoint: Endpoint, access: Access) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            check_parts(request.match_info, endpoint.any_text)
            principal = await access.admit(request, endpoint)
            return await endpoint.handler(await _authorized(endpoint, request, principal, access))
        except Problem:
            raise
        except MeterbridgeError as error:
            if isinstance(error, TopicProblem | LedgerBroken):
                _log.error("request_needs_repair", path=request.path, reason=error.reason, detail=error.detail)
            raise as_problem(error) from error

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await answered(request)
        except Problem as problem:
            access.refused(request, problem)
            raise

    return guarded


async def _authorized(
    endpoint: Endpoint, request: web.Request, principal: Principal, access: Access
) -> AuthorizedRequest:
    authorized = AuthorizedRequest(request, principal, access)
    if endpoint.query is not None or endpoint.scope:
        authorized.query = query_of(endpoint.query or NothingAsked, request.query)
    if endpoint.body is not None:
        authorized.body = parsed(endpoint.body, await body_of(request, endpoint.max_bytes))
    return authorized
