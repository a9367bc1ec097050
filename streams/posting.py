"""The way to Lago: what delivery needs of it, and the breaker and permits that stand before it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import isinf
from typing import Protocol

from schemas.errors import Unavailable
from schemas.records import LagoEvent
from streams.core.answers import Answer, Verdict, decide, unanswered
from streams.core.batches import Batch
from streams.core.breaker import Breaker


class Poster(Protocol):
    """Lago, as far as delivery needs it."""

    async def post_batch(self, body: bytes) -> Answer:
        """Any HTTP answer. Raises: Unavailable `connect`, `timeout` or `no_answer` where none came."""

    async def get_event(self, transaction_id: str) -> LagoEvent | None:
        """The stored event, None where Lago knows none. Raises: Unavailable or Rejected."""

    async def healthy(self) -> bool:
        """Whether Lago answers at all; never raises."""


@dataclass(frozen=True, slots=True)
class Wire:
    """The way to Lago, shared by all deliveries of a process.

    Fields:
        concurrency: one permit a request.
        clock: monotonic seconds.
        on_request: called with (`post_batch`, HTTP status or 0 where none came, seconds) after each post.
    """

    poster: Poster
    concurrency: asyncio.Semaphore
    breaker: Breaker
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    on_request: Callable[[str, int, float], None]

    @asynccontextmanager
    async def admitted(self, batch: Batch) -> AsyncIterator[None]:
        """Entered once the breaker lets `batch` pass and a permit is free; a probe left unanswered is abandoned."""
        while True:
            await self._passage(batch)
            async with self.concurrency:
                if not self.breaker.admit(batch, self.clock()):
                    continue  # it opened while this batch waited for its permit
                try:
                    yield
                finally:
                    self.breaker.abandon(batch, self.clock())
                return

    async def post(self, body: bytes, sent: int) -> Verdict:
        """The verdict on one post of `sent` events."""
        started = self.clock()
        try:
            answer = await self.poster.post_batch(body)
        except Unavailable as error:
            self.on_request("post_batch", 0, self.clock() - started)
            return unanswered(error.reason, error.detail)
        self.on_request("post_batch", answer.status, self.clock() - started)
        return decide(answer, sent)

    async def _passage(self, batch: Batch) -> None:
        while (wait_s := self.breaker.wait_s(batch, self.clock())) > 0:
            if isinf(wait_s):
                settled = asyncio.Event()
                self.breaker.when_settled(settled.set)
                await settled.wait()
            else:
                await self.sleep(wait_s)
