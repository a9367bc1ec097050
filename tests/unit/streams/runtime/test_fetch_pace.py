"""A Faust consumer lets its broker wait only while nothing can be delayed by it."""

from types import SimpleNamespace

from streams.runtime.fetch_pace import BUSY, QUIET, QUIET_AFTER_S, FetchPace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def waits_of(pace: FetchPace) -> tuple[int, float]:
    fetcher = SimpleNamespace()
    pace.apply(SimpleNamespace(_fetcher=fetcher))
    return fetcher._fetch_max_wait_ms, fetcher._fetcher_timeout


def test_a_consumer_is_busy_at_first_and_quiet_when_nothing_has_happened_for_a_while() -> None:
    clock = Clock()
    pace = FetchPace(clock)
    assert (pace.waits(), waits_of(pace)) == (BUSY, (BUSY.held_ms, BUSY.look_s))
    clock.now += QUIET_AFTER_S
    assert (pace.waits(), waits_of(pace)) == (QUIET, (QUIET.held_ms, QUIET.look_s))


def test_whatever_happens_makes_it_busy_again() -> None:
    clock = Clock()
    pace = FetchPace(clock)
    clock.now += 3600
    assert pace.waits() == QUIET
    pace.busy()
    clock.now += QUIET_AFTER_S * 0.99
    assert (pace.waits(), waits_of(pace)) == (BUSY, (BUSY.held_ms, BUSY.look_s))


def test_a_quiet_consumer_asks_a_fifth_as_often() -> None:
    assert QUIET.held_ms >= 5 * BUSY.held_ms
    assert QUIET.records_s >= 5 * BUSY.records_s
    assert QUIET.look_s >= 5 * BUSY.look_s
