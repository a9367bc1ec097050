"""Limits the rate of one process's requests to Lago, so that all processes together stay within Lago's limit.

Lago Cloud limits the requests of an organization. Each answer says how many requests are left for all clients, and for
how long (docs/lago-behaviour.md, 1.6). So each process spreads the remaining requests evenly over the remaining time.
It does not use the last tenth, because other processes may have requests in flight. Without such headers there is no
limit until the first 429. Then the process sends at half of the refused rate, and a little faster each second.

Pure: time is an argument, seconds of a monotonic clock; the caller waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite

#: The longest wait because of a header, seconds.
LONGEST_S = 60.0
#: The fraction of a limit that is not used.
RESERVE = 0.1
#: The length of a window if its `Reset` is missing, rounded down to 0, or a timestamp instead of seconds.
_WINDOW_S = 1.0
_EPOCH = 1e8
#: A sleep may end late. At most this time is compensated, seconds.
_SLACK_S = 0.05
#: A ceiling rises each second by this fraction of the refused rate.
_RISE = 0.05
_MOST = 1e9


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limit in an answer: `remaining` of `limit` requests are left for `reset_s` seconds, in `(0, 60]`."""

    limit: float
    remaining: float
    reset_s: float


def allowance_of(headers: Mapping[str, str]) -> Allowance | None:
    """Read the `X-RateLimit-*` headers of an answer; None if limit or remaining is missing or implausible."""
    lower = {name.lower(): value for name, value in headers.items()}
    limit, remaining, reset_s = (_number(lower.get(f"x-ratelimit-{name}")) for name in ("limit", "remaining", "reset"))
    if limit is None or remaining is None or not 1 <= limit <= _MOST:
        return None
    if reset_s is None or not 0 < reset_s < _EPOCH:
        reset_s = _WINDOW_S
    return Allowance(limit, min(max(remaining, 0.0), limit), min(reset_s, LONGEST_S))


class AdaptiveRateLimiter:
    """The rate of one kind of request.

    Two bounds apply, and the slower one wins:

    | bound   | set by                  | requests per second                                      |
    |---------|-------------------------|----------------------------------------------------------|
    | window  | `X-RateLimit-*` headers | remaining requests minus reserve, per remaining time     |
    | ceiling | a 429                   | half of the refused rate, rising by 1/20 of it each s   |

    The caller uses it in this order: wait for `wait_s`, then `take`, `sent`, `observe` with the answer, `done`.

    Args:
        fastest: requests per second that are never exceeded, even if Lago allows more.

    Attributes:
        limit: the last announced number of requests in a window; 0 = no limit was announced.
    """

    def __init__(self, fastest: float = inf) -> None:
        self._fastest = fastest
        self.limit = 0.0
        self._window_s = _WINDOW_S
        self._left = inf
        self._remaining = inf
        self._reset_at = 0.0
        self._under_way = 0
        self._next_at = 0.0
        self._ceiling = inf
        self._ceiling_at = 0.0
        self._rise = 0.0
        self._second = 0.0
        self._counts = (0, 0)

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next request may be sent. Call it again after the wait, because an answer may
        have changed the limit.
        """
        self._renew(now)
        if self.limit and self._left <= self.limit * RESERVE:
            return self._reset_at - now
        return max(0.0, self._next_at - now)

    def take(self, now: float) -> None:
        """Use the slot that `wait_s` returned."""
        self._next_at = max(self._next_at, now - _SLACK_S) + self._apart_s(now)

    def sent(self, now: float) -> None:
        """Register that a request is sent."""
        self._renew(now)
        self._left -= 1
        self._under_way += 1
        if now - self._second >= 1.0:
            self._counts = (0, self._counts[0] if now - self._second < 2.0 else 0)
            self._second = now
        self._counts = (self._counts[0] + 1, self._counts[1])

    def done(self) -> None:
        """Register that a request has ended, with or without an answer."""
        self._under_way -= 1

    def observe(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """Read the limits in an answer. Call this before `done`."""
        allowance = allowance_of(headers)
        if allowance is not None:
            self._adopt(allowance, now)
        if status == 429:
            self._slow_down(now)

    def _adopt(self, allowance: Allowance, now: float) -> None:
        """Adopt an announced limit.

        Requests in flight, except the answered one, may not be counted in it. Several answers have the same `Reset` in
        whole seconds, so within a window only an earlier end is adopted. Answers can overtake each other, so only a
        large increase of the remaining requests means a new window.
        """
        known = now < self._reset_at and allowance.limit == self.limit and self._remaining < inf
        if known and allowance.remaining - self._remaining <= allowance.limit * RESERVE:
            self._reset_at = min(self._reset_at, now + allowance.reset_s)
            self._remaining = min(self._remaining, allowance.remaining)
        else:
            self._reset_at = now + allowance.reset_s
            self._window_s = allowance.reset_s
            self._remaining = allowance.remaining
        self.limit = allowance.limit
        self._left = allowance.remaining - (self._under_way - 1)

    def _renew(self, now: float) -> None:
        """Begin the next window with the whole limit if the last window has ended."""
        if self.limit and now >= self._reset_at:
            self._left = self.limit - self._under_way
            self._remaining = inf
            self._reset_at = now + self._window_s

    def _apart_s(self, now: float) -> float:
        """Return the seconds between two requests: the remaining requests are spread evenly, and the long-term rate
        never exceeds the limit.
        """
        ceiling = min(self._fastest, self._ceiling + self._rise * (now - self._ceiling_at))
        if not self.limit:
            return 1 / ceiling
        spendable = max(self._left - self.limit * RESERVE, 1.0)
        evenly = (self._reset_at - now) / spendable
        return max(evenly, self._window_s / self.limit, 1 / ceiling)

    def _slow_down(self, now: float) -> None:
        """Set the ceiling from the refused rate. A second refusal at the same time changes nothing."""
        speed = max(self._counts)
        self._ceiling = max(speed / 2, 1.0)
        self._rise = max(speed * _RISE, 0.1)
        self._ceiling_at = now


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) else None
