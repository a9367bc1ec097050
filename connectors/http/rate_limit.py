"""A rate limit for each sender: a number of requests per second, and bursts of one second."""

from collections.abc import Callable

_ROUNDING_S = 1e-6
#: With more senders, those that have not sent recently are forgotten.
_MANY = 10_000


class SenderRateLimiter:
    """Limits each sender separately (leaky bucket, as GCRA).

    Args:
        per_second: requests; above 0.
        monotonic: seconds.
    """

    def __init__(self, per_second: float, monotonic: Callable[[], float]) -> None:
        self._gap_s = 1 / per_second
        self._ahead_s = max(1.0, self._gap_s) - self._gap_s
        self._monotonic = monotonic
        self._due: dict[str, float] = {}  # when the sender's next request is due at an even rate

    def wait_s(self, sender: str) -> float:
        """Return 0 if the request is counted and admitted; otherwise the seconds after which a request may be admitted."""
        now = self._monotonic()
        due = max(self._due.get(sender, now), now)
        if (early_s := due - self._ahead_s - now) > _ROUNDING_S:
            return early_s
        if sender not in self._due and len(self._due) >= _MANY:
            self._due = {sender: later for sender, later in self._due.items() if later > now}
        self._due[sender] = due + self._gap_s
        return 0.0

    def is_early(self, sender: str) -> bool:
        """Return whether a request would have to wait now; this does not count one."""
        now = self._monotonic()
        return self._due.get(sender, now) - self._ahead_s - now > _ROUNDING_S
