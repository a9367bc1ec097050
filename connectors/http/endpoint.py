"""An endpoint of the management API, said once: what it takes, answers and needs.

From one list of them come the routes, behind one guard, and the OpenAPI document. A handler reads `AuthorizedRequest` and
returns its answer; what it raises is answered here, the same everywhere.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from aiohttp import web
from pydantic import BaseModel, ValidationError

from connectors.http.problem import Problem, try_again
from connectors.http.request_limits import MAX_BODY, body_of, check_parts
from connectors.lago.errors import LagoIntegrationError
from schemas.errors import ConfigurationError, Rejected, Unavailable
from streams.core.mapping.customer_prefixes import may_adopt

_RETRY_S = 5
_NO_POSTGRES = "DATABASE_URL"
#: Of a body that is wrong in very many places the first are told: the answer must not be larger than the question.
_ERRORS_TOLD = 20
_FIELD_CHARS = 100


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever asks.

    Fields:
        actor: their name in the audit log; no secret.
        scopes: what they may do; `*` is everything.
        orgs: the only orgs they may see or change; None = all.
        until: when their credential ends by itself, or the keys that they make, aware: nothing they hand on lives
            longer; None = nothing ends.
        prefixes: how the ids of LiteLLM customers begin that they may map; None: see `streams.core.mapping.customer_prefixes`.
    """

    actor: str
    scopes: frozenset[str] = frozenset()
    orgs: frozenset[str] | None = None
    until: datetime | None = None
    prefixes: frozenset[str] | None = None

    def may(self, scope: str) -> bool:
        """Whether they hold the scope."""
        return scope in self.scopes or "*" in self.scopes

    def may_see(self, org_id: str) -> bool:
        """Whether the org is one of theirs."""
        return self.orgs is None or org_id in self.orgs

    def may_adopt(self, customer_id: str) -> bool:
        """Whether they may map a LiteLLM customer whom none of their orgs pays for yet."""
        return may_adopt(self.orgs, self.prefixes, customer_id)


class Access(Protocol):
    """Who may come in."""

    async def admit(self, request: web.Request, endpoint: "Endpoint") -> Principal:
        """Whoever asks, if they hold the endpoint's scope and its org is theirs. Raises: Problem 401, 403, 429."""

    async def changing(self, who: Principal, request: web.Request, before: Any, after: Any) -> None:
        """Leave a line in the audit log, durable on return. Raises: Unavailable."""

    def refused(self, request: web.Request, problem: Problem) -> None:
        """Take note that this is answered with a problem."""


@dataclass(slots=True)
class AuthorizedRequest:
    """A request that was let in.

    Fields:
        body, query: of the endpoint's models; None where it has none.
    """

    request: web.Request
    who: Principal
    access: Access
    body: Any = None
    query: Any = None

    def part(self, name: str) -> str:
        """A part of the path, decoded."""
        return self.request.match_info[name]

    def for_org(self, org_id: str) -> str:
        """`org_id`, if it is one of theirs: for endpoints that `sees_to_orgs`. Raises: Problem 403 `other_org`."""
        if not self.who.may_see(org_id):
            raise other_org()
        return org_id

    async def changing(self, before: Any, after: Any) -> None:
        """Tell the audit log what is there and what is to be there, None = nothing; before the change has any effect.

        Values go there as JSON, so they hold no secret. Raises: Unavailable: nothing may be changed now.
        """
        if before != after:
            await self.access.changing(self.who, self.request, before, after)

    async def handing_out(self, what: str, **more: str) -> None:
        """Tell the audit log who gets power over the org's money, never the power itself; before they have it.

        Raises: Unavailable: nothing may be handed out now.
        """
        await self.access.changing(self.who, self.request, None, {"handed_out": what, **more})


Handler = Callable[[AuthorizedRequest], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method on one path.

    Fields:
        scope: that whoever asks must hold; `""` = anybody may ask.
        summary: one sentence for the document.
        body, query: models; unknown query parameters are ignored.
        answers: models of what is answered by status; None = no body, or not JSON.
        org: name of the path's part that is an org's id: others than the org's own are refused.
        sees_to_orgs: has no such part, and the handler itself shows and changes nothing of orgs that `AuthorizedRequest.who` may
            not see (`AuthorizedRequest.for_org`). Without either, only those who may see all orgs are let in.
        any_text: parts of the path that may be any text, as LiteLLM's customer ids may; of others slashes, dots alone,
            control characters and more than 255 characters are refused.
        max_bytes: of a body that has a model; past it the answer is 413.
        changes: the handler changes something, and says so with `AuthorizedRequest.changing` first.
        also: further scopes that some requests need, and which.
        hands_out: the part of the answer that gives its reader power over the org's money, e.g. `a link to pay by`.
            The handler must call `AuthorizedRequest.handing_out` before it answers.
    """

    method: str
    path: str
    scope: str
    summary: str
    handler: Handler
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    answers: Mapping[int, type[BaseModel] | None] = field(default_factory=dict)
    org: str = ""
    changes: bool = False
    sees_to_orgs: bool = False
    any_text: tuple[str, ...] = ()
    max_bytes: int = MAX_BODY
    also: Mapping[str, str] = field(default_factory=dict)
    hands_out: str = ""


def routes_of(endpoints: Iterable[Endpoint], access: Access) -> list[web.RouteDef]:
    """The routes, each behind `access`."""
    return [web.route(one.method, one.path, _guarded(one, access)) for one in endpoints]


def missing_scope(scope: str, because: str = "") -> Problem:
    """403; the answer names the scope."""
    return Problem(403, "missing_scope", f"this needs the scope {scope}" + (f": {because}" if because else ""))


def other_org() -> Problem:
    """403, whether or not there is such an org: nothing was looked up."""
    return Problem(403, "other_org", "this credential is for other orgs")


def _guarded(endpoint: Endpoint, access: Access) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            check_parts(request.match_info, endpoint.any_text)
            who = await access.admit(request, endpoint)
            return await endpoint.handler(await _asked(endpoint, request, who, access))
        except (Rejected, Unavailable, ConfigurationError) as error:
            raise as_problem(error) from error

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await answered(request)
        except Problem as problem:
            access.refused(request, problem)
            raise

    return guarded


async def _asked(endpoint: Endpoint, request: web.Request, who: Principal, access: Access) -> AuthorizedRequest:
    asked = AuthorizedRequest(request, who, access)
    if endpoint.query is not None:
        asked.query = _valid(endpoint.query, dict(request.query))
    if endpoint.body is not None:
        asked.body = parsed(endpoint.body, await body_of(request, endpoint.max_bytes))
    return asked


def as_problem(error: Rejected | Unavailable | ConfigurationError) -> Problem:
    """How an error that any handler may raise is answered; it names no value of the request."""
    if isinstance(error, LagoIntegrationError):
        return _lagos(error)
    if isinstance(error, Unavailable):
        return try_again(error.reason, error.detail, _RETRY_S)
    if isinstance(error, ConfigurationError):
        return Problem(501, "needs_postgres" if error.reason == _NO_POSTGRES else "not_configured", error.detail)
    return Problem(422, error.reason, error.detail)


def _lagos(error: LagoIntegrationError) -> Problem:
    """Lago's refusals of what the caller asked are the caller's; its refusals of us, and its absence, are not."""
    if error.retryable:
        return try_again(error.reason, error.detail, _RETRY_S)
    if error.status in (404, 422):
        return Problem(error.status, error.code or error.reason, error.detail, None, details=error.details)
    if not error.status:
        return Problem(422, error.reason, error.detail)
    return Problem(502, error.reason, error.detail)


def parsed(model: type[BaseModel], body: bytes) -> BaseModel:
    """A body that nothing is needed of may be absent.

    Raises:
        Problem: 400 for what is not JSON, 422 with the fields that are wrong; never with their values.
    """
    nothing = b"" if any(field.is_required() for field in model.model_fields.values()) else b"{}"
    try:
        return model.model_validate_json(body or nothing)
    except ValidationError as invalid:
        raise _invalid(invalid) from None


def _valid(model: type[BaseModel], values: Mapping[str, str]) -> BaseModel:
    try:
        return model.model_validate(values)
    except ValidationError as invalid:
        raise _invalid(invalid) from None


def _invalid(invalid: ValidationError) -> Problem:
    found = invalid.errors(include_input=False, include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        return Problem(400, "not_json", "the body is not JSON")
    errors = [
        {
            "field": ".".join(str(part)[:_FIELD_CHARS] for part in error["loc"]) or "body",
            "message": error["msg"].removeprefix("Value error, "),
        }
        for error in found[:_ERRORS_TOLD]
    ]
    sentence = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
    return Problem(422, "invalid_fields", sentence, errors=errors)
