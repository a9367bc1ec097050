"""Dead letters, and the numbers of calls and events, over HTTP."""

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

from aiohttp import web
from pydantic import BaseModel, Field

from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import json_response
from connectors.operations.dead_letters import Filters
from connectors.operations.requeue import RequeueResult

#: Limit of one request, so that it is answered within seconds. The caller repeats the request for more dead letters.
MAX_LETTERS = 1000


class RetryBody(BaseModel, extra="forbid"):
    """Which dead letters to requeue; every field is optional.

    Fields:
        kind: events that Lago refused, calls that were rejected, or both.
        reason: only dead letters with this reason; empty = any.
        customer: only dead letters of this LiteLLM customer; empty = any.
        since_ms, until_ms: only dead letters of `[since, until)`, milliseconds since 1970 UTC.
        dead_letter: only this one, e.g. `events/0/17`.
        limit: requeue at most this many, the oldest first.
        comment: a comment for the audit log.
        accept: also bill calls that were kept aside for this reason.
    """

    kind: Literal["events", "calls", "both"] = "both"
    reason: str = ""
    customer: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    dead_letter: str = ""
    limit: Annotated[int, Field(ge=1, le=MAX_LETTERS)] = MAX_LETTERS
    dry_run: bool = False
    comment: str = ""
    accept: Literal["", "implausible_cost"] = ""


class Operations(Protocol):
    """The operations behind these endpoints. All raise Unavailable."""

    async def requeue(
        self, kind: str, filters: Filters, limit: int, comment: str, actor: str, accept: str = "", *, dry_run: bool
    ) -> tuple[RequeueResult, int]:
        """Return the result, and how many dead letters the filters matched. This writes its own line into the audit
        log.

        Raises:
            ConfigurationError: the deployment has no Postgres.
        """

    async def stats(self) -> dict[str, Any]:
        """See `GET /webhooks/stats`."""

    async def unmapped(self) -> list[dict[str, Any]]:
        """See `GET /customers/unmapped`. Raises: ConfigurationError: the deployment has no Postgres."""


class Requeued(BaseModel):
    """The result of a requeue.

    Fields:
        dead_letters: how many the filters matched.
        requeued: how many were sent again.
        known: dead letters that were billed already.
        impossible: dead letters that can never be billed.
        unaccepted: dead letters that are billed only if `accept` names their reason.
        dry_run: true: nothing was sent, the numbers say what would be.
    """

    dead_letters: int
    requeued: int
    known: int
    impossible: int
    unaccepted: int
    dry_run: bool


class Decided(BaseModel):
    """The calls with one decision of the meter; `usd` is a decimal."""

    calls: int
    usd: str


class Stats(BaseModel):
    """Calls and events by their state, counted since the ledgers exist; ages in seconds.

    Fields:
        received: elements that became records of the raw topic.
        accepted: calls that the meter counted.
        duplicate: reports of calls that were counted before.
        rejected: calls that can never be billed.
        unbilled: the part of `accepted` that is not billed.
        by_decision: `accepted` calls by the meter's decision (docs/litellm.md); calls that were counted before
            releases with this field are missing.
        rejected_by_reason: `rejected` by reason (docs/errors.md).
        held_windows: of all ledgers, at their last commits.
        held_over_bound: partitions that hold more windows than `HELD_IN_MEMORY`.
        pending: events that Lago has not accepted yet.
        delivered: events that Lago accepted.
        retrying: events that are sent again.
        dead: events that Lago refused for good.
        oldest_age_seconds: age of the oldest record that is not processed yet.
        oldest_age_seconds_by_topic: the same for each topic.
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
    """A customer whose usage waits for a mapping; `usd` is a decimal.

    Fields:
        id_kind: the field from which the id is, e.g. `end_user`.
        reason: why the usage waits; docs/errors.md has the next step.
        calls: calls that wait.
        since: end of the oldest waiting call, ISO 8601.
    """

    litellm_customer_id: str
    id_kind: str
    reason: str
    calls: int
    usd: str
    since: datetime


class Unmapped(BaseModel):
    """At most 1000 customers, the highest cost first.

    Fields:
        customers: the customers, the highest cost first.
    """

    customers: list[UnmappedCustomer]


class DeadLetterHandlers:
    """`POST /webhooks/retry`, `GET /webhooks/stats` and `GET /customers/unmapped`."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._one_at_a_time = asyncio.Lock()

    @endpoint("POST", "/webhooks/retry", "dead_letters:write", body=RetryBody, answers={200: Requeued, 202: Requeued})
    async def retry(self, authorized: AuthorizedRequest) -> web.Response:
        """Requeue dead letters: send their events to Lago, and their calls to the meter, again."""
        body: RetryBody = authorized.body
        filters = Filters(body.reason, body.customer, body.since_ms, body.until_ms, body.dead_letter)
        async with self._one_at_a_time:
            done, meant = await self._operations.requeue(
                body.kind,
                filters,
                body.limit,
                body.comment,
                authorized.principal.actor,
                body.accept,
                dry_run=body.dry_run,
            )
        counts = {name: getattr(done, name) for name in ("requeued", "known", "impossible", "unaccepted")}
        return json_response({"dead_letters": meant, **counts, "dry_run": body.dry_run}, 200 if body.dry_run else 202)

    @endpoint("GET", "/webhooks/stats", "stats:read", answers={200: Stats})
    async def stats(self, _: AuthorizedRequest) -> web.Response:
        """Show how many calls and events are in each state."""
        return json_response(await self._operations.stats())

    @endpoint("GET", "/customers/unmapped", "mappings:read", answers={200: Unmapped})
    async def unmapped(self, _: AuthorizedRequest) -> web.Response:
        """List customers whose usage waits for a mapping, the highest cost first."""
        return json_response({"customers": await self._operations.unmapped()})
