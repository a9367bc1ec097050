"""How long to wait before the next attempt: of one post, and of one tier of the retry topic."""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.topics import RETRY_TIERS

#: Share of a retry tier's wait that chance may add or take: events that failed together return apart.
RETRY_JITTER = 0.1
#: No retry waits longer, seconds.
RETRY_CAP_S = 3600.0
#: Posts of one attempt in the retry topic where nothing else passes: seconds, for the waits are between the attempts.
RETRY_POSTS = 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits between posts, and when a batch that keeps failing is taken apart.

    Fields:
        random: uniform in `[0, 1)`; handed in, so that tests know it.
        base_s, cap_s: of the exponential backoff, seconds.
        isolate_after: failures of one batch after which it is split, if others passed meanwhile; after which a large
            one is halved, if no other fails, and a small one is posted again with those that wait behind it.
        alone_after: the same when nothing else was posted that could have passed: a poisoned event
            must not block its lane for ever, and an outage must not empty the lane into retries.
        give_way_s: whoever failed a probe lets the others try first, for so long: one poisoned batch cannot
            keep the breaker open.
        health_s: between two questions whether Lago is well, +-50 %: they cost it little, so nobody notices late
            that it is back.
    """

    random: Callable[[], float]
    base_s: float = 0.5
    cap_s: float = 30.0
    isolate_after: int = 3
    alone_after: int = 10
    give_way_s: float = 1.0
    health_s: float = 1.0

    def wait_s(self, attempt: int) -> float:
        """Seconds after the `attempt`-th failure in a row (from 1): exponential, capped, full jitter."""
        doublings = min(max(attempt, 1) - 1, 32)
        return self.random() * min(self.cap_s, self.base_s * 2.0**doublings)

    def health_wait_s(self) -> float:
        """Seconds until Lago's health is asked for again."""
        return self.health_s * (0.5 + self.random())


def tier_of(attempt: int) -> int:
    """The tier (1..8) in which the `attempt`-th retry of an event waits; the last one holds all later ones."""
    return min(max(attempt, 1), RETRY_TIERS)


def retry_delay(attempt: int, base_s: float = 60.0, cap_s: float = RETRY_CAP_S, *, jitter: float) -> float:
    """Seconds the `attempt`-th retry (from 1) waits in its tier: `base_s * 2**(tier - 1)`, +-10 %, capped.

    `jitter` is a random number in `[0, 1)`; 0.5 changes nothing.
    """
    wait_s = base_s * 2.0 ** (tier_of(attempt) - 1)
    return min(cap_s, wait_s * (1 - RETRY_JITTER + 2 * RETRY_JITTER * jitter))
