"""The connection to Lago that delivery uses: the API it needs, and the breaker, permits and rate limits before it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import isinf
from typing import NamedTuple, Protocol

import structlog

from schemas.errors import Unavailable
from schemas.records import LagoEvent
from streams.core.delivery.batches import EventBatch
from streams.core.delivery.circuit_breaker import Breaker
from streams.core.delivery.rate_limiter import AdaptiveRateLimiter
from streams.core.delivery.verdicts import (
    Delivered,
    ErrorKind,
    HttpResponse,
    RefusedEvents,
    RetryLater,
    Verdict,
    unanswered,
    verdict_on_batch,
)

log = structlog.get_logger(__name__)


class LagoEventsApi(Protocol):
    """The part of Lago's API that delivery needs."""

    async def post_batch(self, body: bytes) -> HttpResponse:
        """Post a batch; return the HTTP answer with any status. Raises: Unavailable `connect`, `timeout` or
        `no_answer`: no answer came.
        """

    async def get_event(self, transaction_id: str) -> LagoEvent | None:
        """Return the stored event; None if Lago has none. Raises: Unavailable or Rejected."""

    async def healthy(self) -> bool:
        """Return whether Lago answers its health check; never raises."""


class PostResult(NamedTuple):
    """The result of a post; `status`: HTTP status, 0 = no answer came; `seconds`: duration."""

    verdict: Verdict
    status: int
    seconds: float


class PostRecord(NamedTuple):
    """A post that has ended, without its content.

    Fields:
        first, last: transaction ids of its first and its last event.
        attempt: number of posts of the first event in its delivery.
        status: the HTTP status, 0 where no answer came.
        error: stable code why Lago did not accept all events; `""` = it did.
    """

    events: int
    first: str
    last: str
    attempt: int
    status: int
    error: str
    seconds: float


def error_of(verdict: Verdict) -> str:
    """Return the reason of a verdict; of several errors, the first one that is not `already_exists`."""
    match verdict:
        case Delivered():
            return ""
        case RetryLater(reason=reason):
            return reason
        case RefusedEvents(marks):
            reasons = [mark.reason for mark in marks.values() if mark.fate is not ErrorKind.EXISTS]
            return reasons[0] if reasons else "already_exists"
    return "split"


@dataclass(frozen=True, slots=True)
class LagoPort:
    """The connection to Lago, shared by all deliveries of a process.

    Fields:
        concurrency: permits; each request needs one.
        clock: monotonic seconds.
        on_request: called with (`post_batch`, `POST`, HTTP status or 0 where none came, seconds) after each post.
        posts, looks: rate limiters. Lago limits its ingest endpoints and its other endpoints separately.
        log_fields: fields for the log line about an opened breaker: Lago's address.
    """

    poster: LagoEventsApi
    concurrency: asyncio.Semaphore
    breaker: Breaker
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    on_request: Callable[[str, str, int, float], None]
    posts: AdaptiveRateLimiter
    looks: AdaptiveRateLimiter
    post_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    look_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    log_fields: Mapping[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def admitted(self, batch: EventBatch) -> AsyncIterator[None]:
        """Enter when the breaker admits `batch`, a permit is free, and the rate limit allows it.

        A probe without an answer is abandoned at the exit.
        """
        while True:
            await self._passage(batch)
            async with self.concurrency:
                await self._turn(self.posts, self.post_turn)
                if not self.breaker.admit(batch, self.clock()):
                    continue  # the breaker opened while this batch waited
                try:
                    yield
                finally:
                    self.breaker.abandon(batch, self.clock())
                return

    def settled(self, batch: EventBatch, hold: RetryLater | None) -> None:
        """Report a post's result to the breaker, and log if this opens or closes it. `hold`: None = Lago answered."""
        before, now = self.breaker.since, self.clock()
        if hold is not None:
            self.breaker.failed(batch, batch.family, hold, now)
        else:
            self.breaker.succeeded(batch, now)
        if self.breaker.since != before:
            if self.breaker.reason:
                log.warning("breaker_opened", reason=self.breaker.reason, **self.log_fields)
            else:
                log.info("breaker_closed", open_s=round(now - before, 1))

    async def post(self, body: bytes, ids: Sequence[str]) -> PostResult:
        """Post the events in `body` once. Args: ids: their transaction ids."""
        started = self.clock()
        self.posts.sent(started)
        try:
            answer = await self.poster.post_batch(body)
            self.posts.observe(answer.status, answer.headers, self.clock())
        except Unavailable as error:
            result = PostResult(unanswered(error.reason, error.detail), 0, self.clock() - started)
        else:
            result = PostResult(verdict_on_batch(answer, len(ids), ids), answer.status, self.clock() - started)
        finally:
            self.posts.done()
        self.on_request("post_batch", "POST", result.status, result.seconds)
        return result

    async def look_up(self, transaction_id: str) -> LagoEvent | None:
        """Return the stored event; None if Lago has none. Raises: Unavailable or Rejected."""
        await self._turn(self.looks, self.look_turn)
        self.looks.sent(self.clock())
        try:
            return await self.poster.get_event(transaction_id)
        finally:
            self.looks.done()

    async def _turn(self, pace: AdaptiveRateLimiter, turn: asyncio.Lock) -> None:
        """Make requests take turns: one request waits for the rate limit, the others wait for this request."""
        async with turn:
            while (wait_s := pace.wait_s(self.clock())) > 0:
                await self.sleep(wait_s)
            pace.take(self.clock())

    async def _passage(self, batch: EventBatch) -> None:
        while (wait_s := self.breaker.wait_s(batch, self.clock())) > 0:
            if isinf(wait_s):
                settled = asyncio.Event()
                self.breaker.when_settled(settled.set)
                await settled.wait()
            else:
                await self.sleep(wait_s)
