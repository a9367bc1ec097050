"""How often a sender may post: so many requests a second, a second's worth of them at once."""

from collections.abc import Callable

_ROUNDING_S = 1e-6
#: Senders that are remembered before those are forgotten whom it makes no difference for.
_MANY = 10_000


class SenderRateLimiter:
    """Counts each sender apart (a leaky bucket; GCRA).

    Args:
        per_second: above 0.
        monotonic: seconds.
    """

    def __init__(self, per_second: float, monotonic: Callable[[], float]) -> None:
        self._gap_s = 1 / per_second
        self._ahead_s = max(1.0, self._gap_s) - self._gap_s
        self._monotonic = monotonic
        self._due: dict[str, float] = {}  # when the sender's next request would come at an even pace

    def wait_s(self, sender: str) -> float:
        """0 = this request may pass and is counted; else in how many seconds one would."""
        now = self._monotonic()
        due = max(self._due.get(sender, now), now)
        if (early_s := due - self._ahead_s - now) > _ROUNDING_S:
            return early_s
        if sender not in self._due and len(self._due) >= _MANY:
            self._due = {one: later for one, later in self._due.items() if later > now}
        self._due[sender] = due + self._gap_s
        return 0.0

    def is_early(self, sender: str) -> bool:
        """Whether a request that came now would have to wait; nothing is counted."""
        now = self._monotonic()
        return self._due.get(sender, now) - self._ahead_s - now > _ROUNDING_S
