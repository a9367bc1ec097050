"""Chooses the time of records if this machine's clock is ahead of Kafka's; pure.

Kafka refuses a record whose time is more than an hour ahead of its own clock (`message.timestamp.after.max.ms`, set in
schemas/topics.py), and with the record the whole batch. Kafka does not report its own time. So the producer reduces the
time in steps of an hour until Kafka accepts it. A refused record is not stored, so no record is stored twice (ADR
0025). For a clock that is days or years ahead, the first steps are days and years. Each accepted record makes the
interval smaller.
"""

from typing import Final

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_YEAR_MS: Final = 365 * _DAY_MS
#: Up to the first value the steps are hours, up to the second value days, then years.
_BY_HOURS_MS, _BY_DAYS_MS = 48 * _HOUR_MS, 400 * _DAY_MS
_FARTHEST_MS: Final = 100 * _YEAR_MS


class RecordTimes:
    """By how much times must be reduced: by more than the largest refused value, and by at most the smallest accepted
    value.
    """

    def __init__(self) -> None:
        self._refused_ms = 0
        self._taken_ms = 0

    @property
    def back_ms(self) -> int:
        """The present reduction of times, milliseconds; 0 while Kafka accepts this machine's time."""
        if not self._taken_ms:
            return 0
        left_ms = self._taken_ms - self._refused_ms
        return self._taken_ms if left_ms <= _HOUR_MS else self._refused_ms + _step_ms(left_ms)

    def plausible_ms(self, at_ms: int, now_ms: int) -> int:
        """Return the time for a record of `at_ms`: the same time, but not later than now by the clock that Kafka
        accepts.
        """
        return min(at_ms, now_ms - self.back_ms)

    def refused(self, back_ms: int) -> int | None:
        """Register that Kafka refused a reduction by `back_ms`; return the next one to try, None = Kafka accepts no
        time.
        """
        self._refused_ms = max(self._refused_ms, back_ms)
        if self._taken_ms > self._refused_ms:
            return self.back_ms
        self._taken_ms = 0
        back_ms = self._refused_ms + _step_ms(self._refused_ms)
        return back_ms if back_ms < _FARTHEST_MS else None

    def taken(self, back_ms: int) -> None:
        """Register that Kafka accepted a reduction by `back_ms`."""
        self._taken_ms = back_ms

    def forget(self) -> None:
        """Forget the results, because the clock may be correct again. The next record is sent with its own time."""
        self._refused_ms = self._taken_ms = 0


def _step_ms(reach_ms: int) -> int:
    if reach_ms < _BY_HOURS_MS:
        return _HOUR_MS
    return _DAY_MS if reach_ms < _BY_DAYS_MS else _YEAR_MS
