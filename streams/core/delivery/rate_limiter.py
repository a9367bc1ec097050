"""How fast one process may ask Lago, so that all processes together stay within a limit none of them was told alone.

Lago Cloud limits the requests of an organization and says in every answer how many are left for everybody, and
for how long (docs/lago-behaviour.md 1.6). So each process spends what is left evenly over what is left of the
time, and stops short of the last tenth, which is for requests that are under way elsewhere. Who is not told a
limit is not limited, until the first 429: then half of the speed that met it, and a little more each second.

Pure: time is an argument, seconds of a monotonic clock; waiting is the caller's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite

#: No header makes a process wait longer, seconds.
LONGEST_S = 60.0
#: Share of a limit that is never asked for.
RESERVE = 0.1
#: What a `Reset` stands for that is missing, rounded down to 0, or a moment instead of seconds.
_WINDOW_S = 1.0
_EPOCH = 1e8
#: Sleeps end late: so much of the lost time may be made up for.
_SLACK_S = 0.05
#: A ceiling rises by this share of the speed it was set from, each second.
_RISE = 0.05
_MOST = 1e9


@dataclass(frozen=True, slots=True)
class Allowance:
    """What an answer says is left: `remaining` of `limit` requests, for `reset_s` seconds, in `(0, 60]`."""

    limit: float
    remaining: float
    reset_s: float


def allowance_of(headers: Mapping[str, str]) -> Allowance | None:
    """`X-RateLimit-*` of an answer; None without a limit and what remains of it, both plausible."""
    lower = {name.lower(): value for name, value in headers.items()}
    limit, remaining, reset_s = (_number(lower.get(f"x-ratelimit-{name}")) for name in ("limit", "remaining", "reset"))
    if limit is None or remaining is None or not 1 <= limit <= _MOST:
        return None
    if reset_s is None or not 0 < reset_s < _EPOCH:
        reset_s = _WINDOW_S
    return Allowance(limit, min(max(remaining, 0.0), limit), min(reset_s, LONGEST_S))


class AdaptiveRateLimiter:
    """The speed of one kind of request.

    Attributes:
        limit: requests in a window, as last announced; 0 = none was.
    """

    def __init__(self) -> None:
        self.limit = 0.0
        self._window_s = _WINDOW_S
        self._left = inf
        self._told = inf
        self._reset_at = 0.0
        self._under_way = 0
        self._next_at = 0.0
        self._ceiling = inf
        self._ceiling_at = 0.0
        self._rise = 0.0
        self._second = 0.0
        self._counts = (0, 0)

    def wait_s(self, now: float) -> float:
        """Seconds until the next request may leave; ask again then, more may be known."""
        self._renew(now)
        if self.limit and self._left <= self.limit * RESERVE:
            return self._reset_at - now
        return max(0.0, self._next_at - now)

    def take(self, now: float) -> None:
        """The turn that `wait_s` offered is taken: the next one comes later."""
        self._next_at = max(self._next_at, now - _SLACK_S) + self._apart_s(now)

    def sent(self, now: float) -> None:
        """A request leaves."""
        self._renew(now)
        self._left -= 1
        self._under_way += 1
        if now - self._second >= 1.0:
            self._counts = (0, self._counts[0] if now - self._second < 2.0 else 0)
            self._second = now
        self._counts = (self._counts[0] + 1, self._counts[1])

    def done(self) -> None:
        """A request that was sent has ended, with an answer or without."""
        self._under_way -= 1

    def told(self, status: int, headers: Mapping[str, str], now: float) -> None:
        """What an answer says; to be called before `done`."""
        allowance = allowance_of(headers)
        if allowance is not None:
            self._adopt(allowance, now)
        if status == 429:
            self._slow_down(now)

    def _adopt(self, allowance: Allowance, now: float) -> None:
        """Those under way, but for the one answered, may not have been counted yet.

        A `Reset` in whole seconds says the same all the time: within a window only an earlier end is believed.
        Answers overtake each other, so only a great leap of what remains is a new window.
        """
        known = now < self._reset_at and allowance.limit == self.limit and self._told < inf
        if known and allowance.remaining - self._told <= allowance.limit * RESERVE:
            self._reset_at = min(self._reset_at, now + allowance.reset_s)
            self._told = min(self._told, allowance.remaining)
        else:
            self._reset_at = now + allowance.reset_s
            self._window_s = allowance.reset_s
            self._told = allowance.remaining
        self.limit = allowance.limit
        self._left = allowance.remaining - (self._under_way - 1)

    def _renew(self, now: float) -> None:
        """A window that has ended leaves the whole limit to the next one."""
        if self.limit and now >= self._reset_at:
            self._left = self.limit - self._under_way
            self._told = inf
            self._reset_at = now + self._window_s

    def _apart_s(self, now: float) -> float:
        """Seconds between two requests: what is left, evenly, and never faster than the limit in the long run."""
        ceiling = self._ceiling + self._rise * (now - self._ceiling_at)
        if not self.limit:
            return 1 / ceiling
        spendable = max(self._left - self.limit * RESERVE, 1.0)
        evenly = (self._reset_at - now) / spendable
        return max(evenly, self._window_s / self.limit, 1 / ceiling)

    def _slow_down(self, now: float) -> None:
        """By the speed that was met, so that a second refusal of the same moment changes nothing."""
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
