"""How well a provider answers for a model: healthy, degraded or down, out of a sliding window of its calls; pure.

The thresholds to leave a state are lower than those to enter it, so that a rate that moves around one threshold does not make the
state flap.
"""

from dataclasses import dataclass
from typing import Final

HEALTHY, DEGRADED, DOWN = STATUSES = ("healthy", "degraded", "down")
#: Failures in a row after which a provider is down, however few calls there are.
ROW_OF_FAILURES: Final = 5
#: With fewer calls a share of failures says little.
LEAST_CALLS: Final = 10
#: Shares of failures, in percent of the calls, at which a state begins and below which it ends.
DOWN_FROM, DOWN_UNTIL = 50, 25
DEGRADED_FROM, DEGRADED_UNTIL = 10, 5


@dataclass(frozen=True, slots=True)
class SeenCalls:
    """The calls of a window that say something about the provider: successful ones, and failures that are its own.

    Fields:
        failures: of `calls`; rate limits are among them.
        consecutive_failures: since the last success.
    """

    calls: int
    failures: int
    consecutive_failures: int


def status_after(before: str, seen: SeenCalls) -> str:
    """The status, if it was `before` and the window now has these calls.

    Without calls the state is unknown: a provider that was down becomes degraded, so that clients try it again.
    """
    if not seen.calls:
        return DEGRADED if before == DOWN else before
    if seen.consecutive_failures >= ROW_OF_FAILURES:
        return DOWN
    if before == DOWN and (seen.consecutive_failures or _reaches(seen, DOWN_UNTIL)):
        return DOWN
    if seen.calls >= LEAST_CALLS and _reaches(seen, DOWN_FROM):
        return DOWN
    if before != HEALTHY and _reaches(seen, DEGRADED_UNTIL):
        return DEGRADED
    return DEGRADED if seen.calls >= LEAST_CALLS and _reaches(seen, DEGRADED_FROM) else HEALTHY


def _reaches(seen: SeenCalls, percent: int) -> bool:
    return seen.failures * 100 >= seen.calls * percent
