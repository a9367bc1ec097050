"""Record times of an ingress whose clock is ahead: the error is found from Kafka's refusals alone, within an hour."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka.record_timestamps import RecordTimes
from schemas.topics import TIME_AHEAD_MS

HOUR_MS, DAY_MS, YEAR_MS = 3_600_000, 24 * 3_600_000, 365 * 24 * 3_600_000
NOW_MS = 1_795_176_000_000


def is_taken(back_ms: int, ahead_ms: int) -> bool:
    """Kafka's rule."""
    return ahead_ms - back_ms <= TIME_AHEAD_MS


def send(times: RecordTimes, ahead_ms: int) -> tuple[int, int]:
    """Send one record through an ingress whose clock is ahead: how far its time was moved back, and how often it was
    refused.
    """
    back_ms: int | None = times.back_ms
    refusals = 0
    while back_ms is not None:
        if is_taken(back_ms, ahead_ms):
            times.taken(back_ms)
            return back_ms, refusals
        refusals += 1
        back_ms = times.refused(back_ms)
    raise AssertionError("no time was taken")


@given(st.integers(0, 48 * HOUR_MS))
def test_up_to_two_days_the_first_record_is_stored_within_an_hour_of_now(ahead_ms: int) -> None:
    """Never before the present: a call that has just ended would seem to end in the future."""
    back_ms, refusals = send(RecordTimes(), ahead_ms)
    assert 0 <= ahead_ms - back_ms <= TIME_AHEAD_MS
    assert refusals <= 48


@given(st.integers(0, 60 * YEAR_MS))
def test_for_any_error_of_the_clock_the_fourth_record_is_stored_within_an_hour_of_now(ahead_ms: int) -> None:
    times = RecordTimes()
    sent = [send(times, ahead_ms) for _ in range(5)]
    for back_ms, _ in sent[3:]:
        assert 0 <= ahead_ms - back_ms <= TIME_AHEAD_MS
    assert sent[4] == (sent[3][0], 0), "known, no record is refused any more"
    assert sum(refusals for _, refusals in sent) < 1500


def test_a_time_in_the_future_becomes_now_and_a_time_in_the_past_stays() -> None:
    times = RecordTimes()
    assert times.plausible_ms(NOW_MS + 25 * HOUR_MS, NOW_MS) == NOW_MS
    assert times.plausible_ms(NOW_MS - 3 * DAY_MS, NOW_MS) == NOW_MS - 3 * DAY_MS
    send(times, 25 * HOUR_MS)
    assert times.plausible_ms(NOW_MS, NOW_MS) == NOW_MS - 24 * HOUR_MS
    times.forget()
    assert times.plausible_ms(NOW_MS, NOW_MS) == NOW_MS
