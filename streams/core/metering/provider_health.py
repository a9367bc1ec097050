"""Judges how well a provider answers for a model: healthy, degraded or down, from a sliding window of its calls; pure.

The threshold to leave a state is lower than the threshold to enter it, so that the state does not flap if the rate
varies around one threshold.
"""

from dataclasses import dataclass
from typing import Final

HEALTHY, DEGRADED, DOWN = STATUSES = ("healthy", "degraded", "down")
#: Number of consecutive failures after which a provider is down, even with few calls.
ROW_OF_FAILURES: Final = 5
#: The least number of calls for which a percentage of failures is meaningful.
LEAST_CALLS: Final = 10
#: Percentages of failed calls at which a state begins, and below which it ends.
DOWN_FROM, DOWN_UNTIL = 50, 25
DEGRADED_FROM, DEGRADED_UNTIL = 10, 5


@dataclass(frozen=True, slots=True)
class SeenCalls:
    """The calls of a window that matter for the provider's health: successful calls, and failures that the provider
    caused.

    Fields:
        failures: number of failed calls in `calls`, including rate limits.
        consecutive_failures: number of failures since the last success.
    """

    calls: int
    failures: int
    consecutive_failures: int


def status_after(before: str, seen: SeenCalls) -> str:
    """Return the new status for the status `before` and these calls in the window.

    Without calls the health is unknown. A provider that was down becomes degraded, so that clients try it again.
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
