"""One rate limiter: how it reads headers, when it stops, and how evenly it spends requests; several of them are in
test_shared_rate_limit.py.
"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.delivery.rate_limiter import LONGEST_S, AdaptiveRateLimiter, Allowance, allowance_of


def headers(limit: object = None, remaining: object = None, reset: object = None) -> dict[str, str]:
    observe = {"X-RateLimit-Limit": limit, "x-ratelimit-remaining": remaining, "X-RATELIMIT-RESET": reset}
    return {name: str(value) for name, value in observe.items() if value is not None}


def observe(limit: float, remaining: float, reset_s: float, now: float = 0.0) -> AdaptiveRateLimiter:
    """A rate limiter after the answer to its first request."""
    pace = AdaptiveRateLimiter()
    pace.take(now)
    pace.sent(now)
    pace.observe(200, headers(limit, remaining, reset_s), now)
    pace.done()
    return pace


def moments(pace: AdaptiveRateLimiter, since: float, until: float) -> list[float]:
    """When requests are sent if each waits as needed and none is answered."""
    now, found = since, []
    while (now := now + pace.wait_s(now)) < until:
        if pace.wait_s(now) > 0:
            continue
        pace.take(now)
        pace.sent(now)
        found.append(now)
        pace.done()
    return found


@pytest.mark.parametrize(
    ("given_", "allowance"),
    [
        (headers(500, 499, 1), Allowance(500, 499, 1)),
        (headers(500, 499, 0.25), Allowance(500, 499, 0.25)),
        (headers(500, 499), Allowance(500, 499, 1)),
        (headers(500, 499, 0), Allowance(500, 499, 1)),
        (headers(500, 499, -3), Allowance(500, 499, 1)),
        (headers(500, 499, "soon"), Allowance(500, 499, 1)),
        (headers(500, 499, 1_741_219_251), Allowance(500, 499, 1)),  # a moment, not seconds until then
        (headers(500, 499, 86_400), Allowance(500, 499, LONGEST_S)),
        (headers(500, 900, 1), Allowance(500, 500, 1)),
        (headers(500, -1, 1), Allowance(500, 0, 1)),
        (headers(500), None),
        (headers(None, 499, 1), None),
        (headers(0, 0, 1), None),
        (headers(-500, 3, 1), None),
        (headers("nan", 3, 1), None),
        (headers("inf", 3, 1), None),
        (headers(1e12, 3, 1), None),
        (headers("many", 3, 1), None),
        ({}, None),
    ],
)
def test_only_a_plausible_limit_is_adopted(given_: dict[str, str], allowance: Allowance | None) -> None:
    assert allowance_of(given_) == allowance


def test_without_a_reported_limit_there_is_no_wait() -> None:
    pace = AdaptiveRateLimiter()
    for number in range(10_000):
        assert pace.wait_s(0.0) == 0
        pace.take(0.0)
        pace.sent(0.0)
        pace.observe(500 if number % 2 else 200, {}, 0.0)
        pace.done()
    assert pace.limit == 0


def test_the_remaining_requests_are_spread_evenly_and_the_last_tenth_is_kept() -> None:
    """
    told at 0: 250 of 500 left for a second       |─ 200 requests, 5 ms apart ─|── the next second ──
    """
    pace = observe(500, 250, 1.0)
    found = moments(pace, 0.0, 1.0)
    assert len(found) == pytest.approx(200, abs=2)
    gaps = [b - a for a, b in pairwise(found)]
    assert max(gaps) < 0.02


def test_with_a_tenth_remaining_no_request_is_sent_until_the_reset() -> None:
    pace = observe(500, 50, 0.7, now=10.0)
    assert pace.wait_s(10.0) == pytest.approx(0.7)
    assert pace.wait_s(10.4) == pytest.approx(0.3)
    assert pace.wait_s(10.71) == 0


def test_running_requests_count_although_no_answer_includes_them_yet() -> None:
    pace = AdaptiveRateLimiter()
    for _ in range(5):
        pace.take(0.0)
        pace.sent(0.0)
    pace.observe(200, headers(100, 14, 1), 0.0)  # four more are under way: 10 are left, and a tenth is reserved
    pace.done()
    assert pace.wait_s(0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("reset", ["0", "1"])
def test_a_reset_in_whole_seconds_does_not_move_the_windows_end_again_and_again(reset: str) -> None:
    pace = observe(500, 400, 1.0)
    for tenth in range(1, 9):
        pace.sent(tenth / 10)
        pace.observe(200, headers(500, 400 - 40 * tenth, reset), tenth / 10)
        pace.done()
    pace.sent(0.9)
    pace.observe(200, headers(500, 50, reset), 0.9)
    pace.done()
    assert pace.wait_s(0.9) == pytest.approx(0.1)


def test_the_length_of_a_window_is_measured_again_for_each() -> None:
    """First seen in the middle of a one-minute window, it seems short; the next window is not used up in a second."""
    pace = observe(600, 300, 2.0)
    pace.sent(2.5)
    pace.observe(200, headers(600, 599, 59.5), 2.5)
    pace.done()
    assert len(moments(pace, 2.5, 12.5)) == pytest.approx(90, abs=2)


def test_a_429_without_headers_halves_the_speed_once_a_second_and_the_speed_rises_again() -> None:
    pace = AdaptiveRateLimiter()
    for punctuate in range(200):
        pace.sent(punctuate / 100)
        pace.done()
    for _ in range(4):  # they were under way together
        pace.observe(429, {}, 2.0)
    first = len(moments(pace, 2.0, 3.0))
    assert first == pytest.approx(52, abs=5)
    assert len(moments(pace, 3.0, 4.0)) > first
    assert len(moments(pace, 4.0, 25.0)) > 21 * first


def test_a_429_with_no_requests_remaining_waits_for_the_reset() -> None:
    pace = AdaptiveRateLimiter()
    pace.sent(0.0)
    pace.observe(429, headers(500, 0, 2), 0.0)
    pace.done()
    assert pace.wait_s(0.0) == pytest.approx(2.0)


@given(
    st.integers(1, 2000),
    st.lists(st.tuples(st.integers(0, 2000), st.floats(0.01, 2), st.floats(0, 1), st.booleans()), max_size=60),
)
def test_for_any_headers_the_next_request_is_at_most_a_minute_away(
    limit: int, answers: list[tuple[int, float, float, bool]]
) -> None:
    pace, now = AdaptiveRateLimiter(), 0.0
    for remaining, reset_s, passes_s, refused in answers:
        pace.take(now)
        pace.sent(now)
        pace.observe(429 if refused else 200, headers(limit, remaining, reset_s), now)
        pace.done()
        now += passes_s
        assert 0 <= pace.wait_s(now) <= LONGEST_S
