"""A provider's health follows its calls and does not flap at a threshold; errors of the caller do not count."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.core.metering.error_categories import CATEGORIES, OF_PROVIDER, category_of
from streams.core.metering.provider_health import DEGRADED, DOWN, HEALTHY, STATUSES, SeenCalls, status_after


def seen(calls: int, failures: int = 0, in_a_row: int = 0) -> SeenCalls:
    return SeenCalls(calls, failures, in_a_row)


@pytest.mark.parametrize(
    ("before", "window", "status"),
    [
        (HEALTHY, seen(100, 0), HEALTHY),
        (HEALTHY, seen(100, 9), HEALTHY),
        (HEALTHY, seen(100, 10), DEGRADED),
        (HEALTHY, seen(9, 4, 4), HEALTHY),  # too few calls to tell
        (HEALTHY, seen(5, 5, 5), DOWN),  # but five in a row tell
        (HEALTHY, seen(1000, 5, 5), DOWN),
        (HEALTHY, seen(100, 50), DOWN),
        (DEGRADED, seen(100, 9), DEGRADED),  # not yet below 5 %
        (DEGRADED, seen(100, 5), DEGRADED),
        (DEGRADED, seen(100, 4), HEALTHY),
        (DOWN, seen(100, 25), DOWN),
        (DOWN, seen(100, 24), DEGRADED),
        (DOWN, seen(100, 24, 1), DOWN),  # its last call failed
        (DOWN, seen(100, 0), HEALTHY),
        (HEALTHY, seen(0), HEALTHY),
        (DEGRADED, seen(0), DEGRADED),
        (DOWN, seen(0), DEGRADED),  # it should be tried again
    ],
)
def test_each_threshold_has_its_documented_value(before: str, window: SeenCalls, status: str) -> None:
    assert status_after(before, window) == status


@given(st.sampled_from(STATUSES), st.integers(10, 10_000), st.data())
def test_more_failures_never_improve_the_status(before: str, calls: int, data: st.DataObject) -> None:
    failures = sorted(data.draw(st.lists(st.integers(0, calls), min_size=2, max_size=5)))
    order = [STATUSES.index(status_after(before, seen(calls, one))) for one in failures]
    assert all(one <= other for one, other in pairwise(order))


@given(st.sampled_from(STATUSES), st.integers(1, 10_000), st.data())
def test_the_same_calls_again_change_nothing(before: str, calls: int, data: st.DataObject) -> None:
    failures = data.draw(st.integers(0, calls))
    window = seen(calls, failures, data.draw(st.integers(0, failures)))
    once = status_after(before, window)
    assert status_after(once, window) == once


@pytest.mark.parametrize(
    ("code", "name", "category"),
    [
        ("429", "RateLimitError", "rate_limit"),
        ("429", "litellm.RateLimitError", "rate_limit"),
        ("429", "BudgetExceededError", "client"),
        ("429", "", "rate_limit"),
        ("408", "Timeout", "timeout"),
        ("500", "InternalServerError", "server"),
        ("503", "", "server"),
        ("", "APIConnectionError", "server"),
        ("401", "AuthenticationError", "auth"),
        ("400", "ContextWindowExceededError", "client"),
        ("499", "ClientDisconnected", "client"),
        ("", "ProxyModelNotFoundError", "other"),
        ("", "", "other"),
        ("²²²", "x", "other"),
    ],
)
def test_a_failure_has_the_category_of_its_exception_or_of_its_status(code: str, name: str, category: str) -> None:
    assert category_of(code, name) == category


@given(st.text(), st.text())
def test_every_failure_has_a_category(code: str, name: str) -> None:
    assert category_of(code, name) in CATEGORIES and set(CATEGORIES) > OF_PROVIDER
