"""Computes the wait before the next attempt of a post, and of a tier of the retry topic."""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.topics import RETRY_TIERS

#: The largest random change of a retry tier's wait, as a fraction, so that events that failed together do not return
#: together.
RETRY_JITTER = 0.1
#: The longest wait of a retry, seconds.
RETRY_CAP_S = 3600.0
#: Number of posts within one attempt of the retry topic if no other event is accepted. They are seconds apart, because
#: the long waits are between the attempts.
RETRY_POSTS = 3


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits between posts, and when a batch that keeps failing is split.

    Fields:
        random: uniform in `[0, 1)`.
        base_s, cap_s: base and maximum of the exponential backoff, seconds.
        isolate_after: failures of one batch after which it is split, if others were accepted meanwhile. If no other
            batch fails, a large batch is halved after the same number, and a small one is posted again with the events
            that wait behind it.
        alone_after: failures after which a batch is split when no other batch was posted: a poisoned event must not
            block its partition permanently, and an outage must not move all events to the retry topic.
        give_way_s: how long a batch whose probe failed waits for the probes of others, so that one poisoned batch
            cannot keep the breaker open, seconds.
        health_s: time between two health checks of Lago, +-50 %, seconds. It is short, because the checks cost little
            and show soon that Lago is back.
    """

    random: Callable[[], float]
    base_s: float = 0.5
    cap_s: float = 30.0
    isolate_after: int = 3
    alone_after: int = 10
    give_way_s: float = 1.0
    health_s: float = 1.0

    def wait_s(self, attempt: int) -> float:
        """Return the seconds to wait after the `attempt`-th consecutive failure (from 1): exponential, capped, full
        jitter.
        """
        doublings = min(max(attempt, 1) - 1, 32)
        return self.random() * min(self.cap_s, self.base_s * 2.0**doublings)

    def health_wait_s(self) -> float:
        """Return the seconds until the next health check of Lago."""
        return self.health_s * (0.5 + self.random())


def tier_of(attempt: int) -> int:
    """Return the tier (1..8) of the `attempt`-th retry of an event. The last tier gets all later retries."""
    return min(max(attempt, 1), RETRY_TIERS)


def retry_delay(attempt: int, base_s: float = 60.0, cap_s: float = RETRY_CAP_S, *, jitter: float) -> float:
    """Return the seconds that the `attempt`-th retry (from 1) waits in its tier: `base_s * 2**(tier - 1)`, +-10 %,
    capped.

    `jitter`: a random number in `[0, 1)`; 0.5 changes nothing.
    """
    wait_s = base_s * 2.0 ** (tier_of(attempt) - 1)
    return min(cap_s, wait_s * (1 - RETRY_JITTER + 2 * RETRY_JITTER * jitter))
