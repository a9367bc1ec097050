"""Decides how soon a role that ended by an error is started again."""

from typing import Final

#: The shortest time between two starts of a role, seconds. It doubles with each start, up to the longest.
_LEAST_S: Final = 0.5
_GREATEST_S: Final = 10.0
#: If a role ran longer than this, in seconds, its next error counts as its first error.
_STEADY_S: Final = 60.0


class RestartPace:
    """The pace of one role. Times are seconds of one clock.

    Args:
        now_s: when the role was started for the first time.
    """

    def __init__(self, now_s: float) -> None:
        self._started_s = now_s
        self._between_s = _LEAST_S

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait at `now_s` before an ended role is started again; 0 = it may be started now."""
        ran_s = now_s - self._started_s
        if ran_s > _STEADY_S:
            self._between_s = _LEAST_S
        return max(0.0, self._between_s - ran_s)

    def restarted(self, now_s: float) -> None:
        """Register that the role is started again at `now_s`."""
        self._started_s, self._between_s = now_s, min(self._between_s * 2, _GREATEST_S)
