"""Which time a record carries where this machine's clock is ahead of Kafka's; pure.

Kafka refuses a record whose time is more than an hour ahead of its own clock (`message.timestamp.after.max.ms`, pinned
in schemas/topics.py), and with it the whole batch. It does not say what time it has. So the time is taken back in
steps of an hour until it is taken: what is refused is not stored, so nothing is stored twice (ADR 0025). A clock that
is days or years ahead is found in steps of days and years first; each record that is taken makes the bracket smaller.
"""

from typing import Final

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_YEAR_MS: Final = 365 * _DAY_MS
#: Steps of an hour reach so far, then steps of a day.
_BY_HOURS_MS, _BY_DAYS_MS = 48 * _HOUR_MS, 400 * _DAY_MS
_FARTHEST_MS: Final = 100 * _YEAR_MS


class RecordTimes:
    """How far times have to be taken back: between what Kafka refused and what it took."""

    def __init__(self) -> None:
        self._refused_ms = 0
        self._taken_ms = 0

    @property
    def back_ms(self) -> int:
        """How far times are taken back now, milliseconds; 0 while Kafka takes this machine's own time."""
        if not self._taken_ms:
            return 0
        left_ms = self._taken_ms - self._refused_ms
        return self._taken_ms if left_ms <= _HOUR_MS else self._refused_ms + _step_ms(left_ms)

    def plausible_ms(self, at_ms: int, now_ms: int) -> int:
        """The time for a record of `at_ms`: its own, but never later than now by the clock that Kafka takes."""
        return min(at_ms, now_ms - self.back_ms)

    def refused(self, back_ms: int) -> int | None:
        """Kafka refuses a record of so long ago: how far to take it back next; None = no time is any good."""
        self._refused_ms = max(self._refused_ms, back_ms)
        if self._taken_ms > self._refused_ms:
            return self.back_ms
        self._taken_ms = 0
        back_ms = self._refused_ms + _step_ms(self._refused_ms)
        return back_ms if back_ms < _FARTHEST_MS else None

    def taken(self, back_ms: int) -> None:
        """Kafka takes a record of so long ago."""
        self._taken_ms = back_ms

    def forget(self) -> None:
        """This machine's clock may have been put right: the next record is sent with its own time."""
        self._refused_ms = self._taken_ms = 0


def _step_ms(reach_ms: int) -> int:
    if reach_ms < _BY_HOURS_MS:
        return _HOUR_MS
    return _DAY_MS if reach_ms < _BY_DAYS_MS else _YEAR_MS
