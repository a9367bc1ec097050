"""Dead letters and the way of usage over HTTP."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

from aiohttp import web
from pydantic import BaseModel, Field

from connectors.http.endpoint import AuthorizedRequest, Endpoint
from connectors.http.health import json_response
from connectors.operations.dead_letters import Filters
from connectors.operations.requeue import RequeueResult

#: Letters one request may put back: it is answered within seconds, and may come again.
MAX_LETTERS = 1000


class RetryBody(BaseModel, extra="forbid"):
    """`POST /webhooks/retry`; all of it optional.

    Fields:
        since_ms, until_ms: when the letter died, `[since, until)`, milliseconds since 1970 UTC.
        letter: one only, `events/0/17`.
        why: the caller's words for the audit line.
        accept: bill what was kept aside for this reason.
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
    accept: Literal["", "implausible_cost"] = ""


class Operations(Protocol):
    """What stands behind the routes. All raise Unavailable."""

    async def requeue(
        self, kind: str, filters: Filters, limit: int, why: str, actor: str, accept: str = "", *, dry_run: bool
    ) -> tuple[RequeueResult, int]:
        """What was done, and how many letters were meant; leaves its own line in the audit log.

        Raises:
            ConfigurationError: Postgres is needed.
        """

    async def stats(self) -> dict[str, Any]:
        """See `GET /webhooks/stats`."""

    async def unmapped(self) -> list[dict[str, Any]]:
        """See `GET /customers/unmapped`. Raises: ConfigurationError: Postgres is needed."""


class Requeued(BaseModel):
    """What became of the letters.

    Fields:
        letters: how many were meant.
        known: they had been billed already; impossible: they can never be.
        unaccepted: their reason has to be accepted by name (`accept`).
    """

    letters: int
    requeued: int
    known: int
    impossible: int
    unaccepted: int
    dry_run: bool


class Decided(BaseModel):
    """Calls with one decision; `usd` is a plain decimal."""

    calls: int
    usd: str


class Stats(BaseModel):
    """Calls and events by what became of them, since the ledgers began; ages in seconds.

    Fields:
        unbilled: of `accepted`, those that are not billed.
        by_decision: `accepted` calls by the meter's decision (docs/litellm.md), of those counted since there is this field.
        held_windows: of all ledgers, as of their last commits.
        held_over_bound: partitions that hold more windows than `HELD_IN_MEMORY`.
    """

    received: int
    accepted: int
    duplicate: int
    rejected: int
    unbilled: int
    by_decision: dict[str, Decided]
    rejected_by_reason: dict[str, int]
    held_windows: int
    held_over_bound: list[int]
    pending: int
    delivered: int
    retrying: int
    dead: int
    oldest_age_seconds: float
    oldest_age_seconds_by_topic: dict[str, float]


class UnmappedCustomer(BaseModel):
    """Usage that waits for a mapping; `usd` is a plain decimal."""

    litellm_customer_id: str
    id_kind: str
    reason: str
    calls: int
    usd: str
    since: datetime


class Unmapped(BaseModel):
    """The dearest first, at most 1000."""

    customers: list[UnmappedCustomer]


def letter_endpoints(operations: Operations) -> list[Endpoint]:
    """`POST /webhooks/retry`, `GET /webhooks/stats` and `GET /customers/unmapped`."""
    one_at_a_time = asyncio.Lock()

    async def retry(asked: AuthorizedRequest) -> web.Response:
        body: RetryBody = asked.body
        filters = Filters(body.reason, body.customer, body.since_ms, body.until_ms, body.letter)
        async with one_at_a_time:
            done, meant = await operations.requeue(
                body.kind, filters, body.limit, body.why, asked.who.actor, body.accept, dry_run=body.dry_run
            )
        counts = ("requeued", "known", "impossible", "unaccepted")
        told = {"letters": meant, **{name: getattr(done, name) for name in counts}}
        return json_response({**told, "dry_run": body.dry_run}, 200 if body.dry_run else 202)

    async def stats(_: AuthorizedRequest) -> web.Response:
        return json_response(await operations.stats())

    async def unmapped(_: AuthorizedRequest) -> web.Response:
        return json_response({"customers": await operations.unmapped()})

    return [
        Endpoint(
            "POST",
            "/webhooks/retry",
            "letters:write",
            "Put dead letters back on their way to Lago.",
            retry,
            body=RetryBody,
            answers={200: Requeued, 202: Requeued},
            changes=True,
        ),
        Endpoint(
            "GET",
            "/webhooks/stats",
            "stats:read",
            "Calls and events by what became of them.",
            stats,
            answers={200: Stats},
        ),
        Endpoint(
            "GET",
            "/customers/unmapped",
            "mappings:read",
            "Customers whose usage waits for a mapping, the dearest first.",
            unmapped,
            answers={200: Unmapped},
        ),
    ]
