"""How soon a role that ended by an error is started again."""

from typing import Final

#: The least time between two starts of a role, seconds. It doubles with each start up to the greatest.
_LEAST_S: Final = 0.5
_GREATEST_S: Final = 10.0
#: A role that ran longer than this, seconds, is started again as after its first error.
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
        """How long to wait, at `now_s`, until a role that has ended is started again; 0 = it may be started."""
        ran_s = now_s - self._started_s
        if ran_s > _STEADY_S:
            self._between_s = _LEAST_S
        return max(0.0, self._between_s - ran_s)

    def restarted(self, now_s: float) -> None:
        """The role is started again at `now_s`."""
        self._started_s, self._between_s = now_s, min(self._between_s * 2, _GREATEST_S)
