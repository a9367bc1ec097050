"""Dead letters and the way of usage over HTTP, for those who know the master key."""

import asyncio
from collections.abc import Awaitable
from typing import Annotated, Any, Literal, Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from connectors.http.auth import WebhookAuth
from connectors.http.health import json_response
from connectors.http.middleware import bearer_only
from connectors.http.problem import Problem, try_again
from connectors.operations.letters import Filters
from connectors.operations.requeue import Done
from schemas.errors import ConfigurationError, Unavailable

#: Letters one request may put back: it is answered within seconds, and may come again.
MAX_LETTERS = 1000
_RETRY_S = 5
T = TypeVar("T")


class RetryBody(BaseModel, extra="forbid"):
    """`POST /webhooks/retry`; all of it optional.

    Fields:
        since_ms, until_ms: when the letter died, `[since, until)`, milliseconds since 1970 UTC.
        letter: one only, `events/0/17`.
        why: the caller's words for the audit line.
    """

    kind: Literal["events", "calls", "both"] = "both"
    reason: str = ""
    customer: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    letter: str = ""
    limit: Annotated[int, Field(ge=1, le=MAX_LETTERS)] = MAX_LETTERS
    dry_run: bool = False
    why: str = ""


class Operations(Protocol):
    """What stands behind the routes. All raise Unavailable."""

    async def requeue(self, kind: str, filters: Filters, limit: int, why: str, *, dry_run: bool) -> tuple[Done, int]:
        """What was done, and how many letters were meant. Raises: ConfigurationError: Postgres is needed."""

    async def stats(self) -> dict[str, Any]:
        """See `GET /webhooks/stats`."""

    async def unmapped(self) -> list[dict[str, Any]]:
        """See `GET /customers/unmapped`. Raises: ConfigurationError: Postgres is needed."""


def letter_routes(operations: Operations, auth: WebhookAuth) -> list[web.RouteDef]:
    """`POST /webhooks/retry`, `GET /webhooks/stats` and `GET /customers/unmapped`."""
    one_at_a_time = asyncio.Lock()

    async def retry(request: web.Request) -> web.Response:
        body = _parsed(await request.read())
        filters = Filters(body.reason, body.customer, body.since_ms, body.until_ms, body.letter)
        async with one_at_a_time:
            done, meant = await _answered(
                operations.requeue(body.kind, filters, body.limit, body.why, dry_run=body.dry_run)
            )
        told = {"letters": meant, "requeued": done.requeued, "known": done.known, "impossible": done.impossible}
        return json_response({**told, "dry_run": body.dry_run}, 200 if body.dry_run else 202)

    async def stats(_: web.Request) -> web.Response:
        return json_response(await _answered(operations.stats()))

    async def unmapped(_: web.Request) -> web.Response:
        return json_response({"customers": await _answered(operations.unmapped())})

    return [
        web.post("/webhooks/retry", bearer_only(auth, retry)),
        web.get("/webhooks/stats", bearer_only(auth, stats)),
        web.get("/customers/unmapped", bearer_only(auth, unmapped)),
    ]


async def _answered(work: Awaitable[T]) -> T:
    try:
        return await work
    except ConfigurationError as error:
        raise Problem(501, "needs_postgres", error.detail) from error
    except Unavailable as error:
        raise try_again(error.reason, error.detail, _RETRY_S) from error


def _parsed(body: bytes) -> RetryBody:
    try:
        return RetryBody.model_validate_json(body or b"{}")
    except ValidationError as invalid:
        found = invalid.errors(include_input=False, include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        raise Problem(400, "not_json", "the body is not JSON")
    names = ", ".join(".".join(map(str, error["loc"])) or "body" for error in found)
    raise Problem(422, "invalid_fields", f"wrong or unknown: {names}")
