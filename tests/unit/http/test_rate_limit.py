"""The rate limit: one second's worth of requests at once, then evenly; each sender has its own limit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.http.rate_limit import SenderRateLimiter


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def passed(pace: SenderRateLimiter, tries: int, sender: str = "token 0") -> int:
    return sum(pace.wait_s(sender) == 0 for _ in range(tries))


@pytest.mark.parametrize(("per_second", "at_once"), [(10, 10), (1, 1), (0.5, 1), (2.5, 2), (1000, 1000)])
def test_one_seconds_worth_of_requests_may_come_at_once(per_second: float, at_once: int) -> None:
    assert passed(SenderRateLimiter(per_second, Clock()), at_once * 3) == at_once


def test_a_refused_sender_is_told_when_to_come_back_and_then_accepted() -> None:
    clock = Clock()
    pace = SenderRateLimiter(0.5, clock)
    assert pace.wait_s("a") == 0
    assert pace.wait_s("a") == pytest.approx(2)
    clock.now += 1.5
    assert pace.wait_s("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert pace.wait_s("a") == 0


def test_a_refused_request_does_not_count_and_senders_do_not_affect_each_other() -> None:
    clock = Clock()
    pace = SenderRateLimiter(10, clock)
    assert passed(pace, 1000, "token 0") == 10
    assert passed(pace, 1000, "token 1") == 10
    clock.now += 0.5
    assert passed(pace, 1000, "token 0") == 5
    clock.now += 3600
    assert passed(pace, 1000, "token 0") == 10


@given(st.floats(0.1, 50), st.lists(st.floats(0, 2), max_size=50))
def test_in_any_time_no_more_requests_pass_than_the_rate_and_one_burst(per_second: float, pauses: list[float]) -> None:
    clock = Clock()
    pace, count = SenderRateLimiter(per_second, clock), 0
    for pause in pauses:
        clock.now += pause
        count += passed(pace, 3)
    assert count <= sum(pauses) * per_second + max(1.0, per_second) + 0.01
