"""A Lago in virtual time that limits an organization's requests, and several processes that post to it.

Limit and events are the sandbox's own (connectors/lago_sandbox/limits.py, store.py); nothing here waits in real time.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from connectors.lago_sandbox.limits import SandboxLimit
from schemas.errors import Unavailable
from schemas.records import LagoEvent
from streams.core.delivery.backoff import RetryPolicy
from streams.core.delivery.batches import Item
from streams.core.delivery.circuit_breaker import Breaker
from streams.core.delivery.rate_limiter import AdaptiveRateLimiter
from streams.core.delivery.verdicts import HttpResponse
from streams.delivery.engine import Delivery
from tests.support.scripted_lago import ScriptedLago, item
from tests.support.virtual_time import virtual_now

#: What one worker process has: WORKER_CONCURRENCY, and partition tasks that post and settle one after the other.
PERMITS, LANES, SETTLE_LIMIT = 4, 2, 500


@dataclass
class LimitedLago:
    """Implements `LagoEventsApi`.

    Fields:
        headers: returns the rate limit's headers of a response, in the form of one version of Lago.
        latency_s: returns the latency of the next request.
        away: `[from, to)` in which connections are refused.
        lago: answers the requests that are within the limit.
        posts: times of the requests that the limit counted.
    """

    limit: SandboxLimit
    headers: Callable[[dict[str, str], float], dict[str, str]] = lambda headers, _now: headers
    latency_s: Callable[[], float] = lambda: 0.02
    away: tuple[float, float] = (0.0, 0.0)
    lago: ScriptedLago = field(default_factory=lambda: ScriptedLago(latency_s=0))
    posts: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    async def post_batch(self, body: bytes) -> HttpResponse:
        """Count a post when it arrives, and answer it later, like Lago Cloud does."""
        half_s = self.latency_s() / 2
        await asyncio.sleep(half_s)
        now = virtual_now()
        if self.away[0] <= now < self.away[1]:
            raise Unavailable("connect")
        granted = self.limit.take(now)
        headers = self.headers(self.limit.headers(now), now)
        (self.posts if granted else self.refused).append(now)
        answer = await self.lago.post_batch(body) if granted else HttpResponse(429, {}, b"{}")
        await asyncio.sleep(half_s)
        return HttpResponse(answer.status, answer.headers | headers, answer.body)

    async def get_event(self, transaction_id: str) -> LagoEvent | None:
        """Return an event without a limit: delivery's look-ups have another limit."""
        return await self.lago.get_event(transaction_id)

    @property
    def stored(self) -> Counter[str]:
        """Return how often each event is stored."""
        return Counter(one.transaction_id for one in self.lago.store)

    async def healthy(self) -> bool:
        """Return False while connections are refused."""
        await asyncio.sleep(0.01)
        return not self.away[0] <= virtual_now() < self.away[1]


class Fleet:
    """Worker processes that share nothing but Lago; events are dealt to their partition tasks in turn.

    Attributes:
        breakers: one for each process.
    """

    def __init__(self, lago: LimitedLago, processes: int, batch_size: int = 1) -> None:
        self.offered = 0
        self._queues: list[asyncio.Queue[Item]] = []
        self._tasks: list[asyncio.Future[None]] = []
        self.breakers: list[Breaker] = []
        for number in range(processes):
            policy = RetryPolicy(Random(number).random)
            self.breakers.append(Breaker(policy, virtual_now()))
            delivery = _process(lago, policy, self.breakers[-1], batch_size)
            for _ in range(LANES):
                self._queues.append(asyncio.Queue())
                self._tasks.append(asyncio.ensure_future(self._lane(delivery, self._queues[-1])))

    def offer(self, events: int) -> None:
        """Offer this number of new events."""
        for _ in range(events):
            self._queues[self.offered % len(self._queues)].put_nowait(item(f"e-{self.offered}"))
            self.offered += 1

    async def offer_steadily(self, per_s: int, seconds: float) -> None:
        """Offer events as the meter seals them, at two ticks per second."""
        for _ in range(int(seconds * 2)):
            self.offer(per_s // 2)
            await asyncio.sleep(0.5)

    async def drained(self, lago: LimitedLago) -> None:
        """Return when Lago has everything."""
        while len(lago.lago.store) < self.offered:
            await asyncio.sleep(0.1)

    def stop(self) -> None:
        """End every partition task."""
        for task in self._tasks:
            task.cancel()

    @staticmethod
    async def _lane(delivery: Delivery, queue: asyncio.Queue[Item]) -> None:
        while True:
            fetch_batch = [await queue.get()]
            while len(fetch_batch) < SETTLE_LIMIT and not queue.empty():
                fetch_batch.append(queue.get_nowait())
            assert {outcome.kind for outcome in await delivery.deliver(fetch_batch)} == {"delivered"}


def _process(lago: LimitedLago, policy: RetryPolicy, breaker: Breaker, batch_size: int) -> Delivery:
    return Delivery(
        lago,
        concurrency=asyncio.Semaphore(PERMITS),
        breaker=breaker,
        policy=policy,
        clock=virtual_now,
        sleep=asyncio.sleep,
        on_request=lambda *_: None,
        batch_size=batch_size,
        posts=AdaptiveRateLimiter(),
    )
