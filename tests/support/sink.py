"""A delivery with access to its dependencies, in virtual time."""

import asyncio
from collections.abc import Callable, Sequence

from streams.core.delivery.backoff import RetryPolicy
from streams.core.delivery.batches import EventOutcome, Item
from streams.core.delivery.circuit_breaker import Breaker
from streams.core.delivery.rate_limiter import AdaptiveRateLimiter
from streams.delivery.engine import Delivery
from tests.support.scripted_lago import ScriptedLago
from tests.support.virtual_time import run_virtually, virtual_now

POLICY = RetryPolicy(random=lambda: 0.5)


class Sink:
    """A delivery with access to its dependencies; several made from one `breaker` are partition tasks of one process."""

    def __init__(
        self,
        lago: ScriptedLago,
        breaker: Breaker | None = None,
        concurrency: asyncio.Semaphore | None = None,
        *,
        batch_size: int = 100,
        resend_is_safe: bool = True,
        batches_are_whole: bool = True,
        looks: AdaptiveRateLimiter | None = None,
        policy: RetryPolicy = POLICY,
    ) -> None:
        self.breaker = breaker or Breaker(policy)
        self.requests: list[tuple[str, str, int, float]] = []
        self.delivery = Delivery(
            lago,
            concurrency=concurrency or asyncio.Semaphore(4),
            breaker=self.breaker,
            policy=policy,
            clock=virtual_now,
            sleep=asyncio.sleep,
            on_request=lambda *request: self.requests.append(request),
            batch_size=batch_size,
            resend_is_safe=lambda: resend_is_safe,
            batches_are_whole=lambda: batches_are_whole,
            looks=looks,
        )


def deliver(
    lago: ScriptedLago, items: Sequence[Item], *, batch_size: int = 100, safe: bool = True
) -> list[EventOutcome]:
    async def main() -> list[EventOutcome]:
        return await Sink(lago, batch_size=batch_size, resend_is_safe=safe).delivery.deliver(items)

    return run_virtually(main())


def kinds_and_reasons(outcomes: Sequence[EventOutcome]) -> list[tuple[str, str]]:
    return [(outcome.kind, outcome.reason) for outcome in outcomes]


def first(fault: str, times: int = 1) -> Callable[[int, list[str]], str | None]:
    return lambda number, _ids: fault if number < times else None
