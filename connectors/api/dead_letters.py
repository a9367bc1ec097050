"""`POST /webhooks/retry`: dead letters are requeued over HTTP."""

import asyncio
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BaseModel, Field, StrictBool

from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.http.health import json_response
from connectors.operations.dead_letter_service import DeadLetterService
from connectors.operations.dead_letters import Filters
from schemas.errors import Unavailable
from schemas.moments import MAX_US

#: Limit of one request, so that it is answered within seconds. The caller repeats the request for more dead letters.
MAX_LETTERS = 1000
_BUSY = "this process has not answered another such request yet; send yours again after that"

#: Kafka gives negative times a special meaning: -1 is the end of a topic.
MomentMs = Annotated[int | None, Field(ge=0, lt=MAX_US // 1000)]


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
    since_ms: MomentMs = None
    until_ms: MomentMs = None
    dead_letter: str = ""
    limit: Annotated[int, Field(ge=1, le=MAX_LETTERS)] = MAX_LETTERS
    dry_run: StrictBool = False
    comment: str = ""
    accept: Literal["", "implausible_cost"] = ""


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


class DeadLetterHandlers:
    """`POST /webhooks/retry`."""

    def __init__(self, dead_letters: DeadLetterService) -> None:
        self._dead_letters = dead_letters
        # Of two requeues in one process the second would fence the first. A dry run fences nothing, so it runs beside a
        # requeue; only one runs at a time, because it scans the topics of dead letters. Neither waits for another one, which may
        # itself wait a minute for the meter and the projector.
        self._requeuing, self._previewing = asyncio.Lock(), asyncio.Lock()

    @endpoint(
        "POST",
        "/webhooks/retry",
        "dead_letters:write",
        body=RetryBody,
        refuses={422: ("unknown_reason",)},
        answers={200: Requeued, 202: Requeued},
    )
    async def retry(self, authorized: AuthorizedRequest) -> web.Response:
        """Requeue dead letters: send their events to Lago, and their calls to the meter, again."""
        running = self._previewing if authorized.body.dry_run else self._requeuing
        if running.locked():
            raise Unavailable("requeue_in_progress", _BUSY)
        body: RetryBody = authorized.body
        filters = Filters(body.reason, body.customer, body.since_ms, body.until_ms, body.dead_letter)
        async with running:
            done, meant = await self._dead_letters.requeue(
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
