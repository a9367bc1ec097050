"""Lago bills a time as long as the invoice of its billing period does not exist; usage that is late for one goes to the
next period.
"""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.customers import Period
from schemas.moments import HOUR_US, SECOND_US, to_us
from schemas.policy import OutOfPeriodPolicy
from streams.core.mapping.billing_periods import billed, running_since
from streams.core.mapping.held_reasons import ENDED, LATE_PERIOD, NO_CHARGE, OUTSIDE_PERIOD
from streams.core.mapping.plan_intervals import MONTHS
from streams.core.mapping.resolve import held_for

DAY_US = 24 * HOUR_US


def us(*when: int) -> int:
    return to_us(datetime(*when, tzinfo=UTC))  # type: ignore[misc]


OCTOBER, NOVEMBER, DECEMBER = us(2026, 10, 1), us(2026, 11, 1), us(2026, 12, 1)
LATE_OCTOBER, NOVEMBER_5 = us(2026, 10, 28, 12), us(2026, 11, 5)
MONTHLY = Period("sub", OCTOBER, interval="monthly")


def test_usage_that_is_late_for_its_invoice_goes_to_the_running_billing_period() -> None:
    """
    October 1        28        November 1      5
       |-------------u-------------|-----------now
                     |   invoiced  |
                     '------------>u
    """
    found = billed((MONTHLY,), "sub", LATE_OCTOBER, NOVEMBER_5)
    assert (found.at_us, found.held, found.invoiced) == (NOVEMBER, "", True)


@pytest.mark.parametrize("now", [LATE_OCTOBER, NOVEMBER - 1])
def test_usage_in_the_running_billing_period_is_not_moved(now: int) -> None:
    assert billed((MONTHLY,), "sub", LATE_OCTOBER, now).at_us == LATE_OCTOBER


def test_a_billing_period_counts_as_invoiced_from_its_end_on() -> None:
    assert billed((MONTHLY,), "sub", LATE_OCTOBER, NOVEMBER).at_us == NOVEMBER


def test_a_record_without_an_interval_moves_nothing() -> None:
    """Such records are from a release that did not store the interval."""
    assert billed((Period("sub", OCTOBER),), "sub", LATE_OCTOBER, us(2027, 3, 1)).at_us == LATE_OCTOBER
    assert billed((), "sub", LATE_OCTOBER, NOVEMBER_5).at_us == LATE_OCTOBER


def test_a_subscription_may_start_inside_its_first_billing_period() -> None:
    begun = Period("sub", NOVEMBER_5, interval="monthly")
    assert billed((begun,), "sub", LATE_OCTOBER, us(2026, 11, 20)).at_us == NOVEMBER_5
    assert not billed((begun,), "sub", LATE_OCTOBER, us(2026, 11, 20)).invoiced


def test_usage_that_arrives_after_the_end_goes_to_the_next_period_of_the_same_id() -> None:
    """A plan change ends one subscription and starts the next under its id: the first is invoiced at once."""
    lives = (Period("sub", OCTOBER, NOVEMBER_5, interval="monthly"), Period("sub", NOVEMBER_5, interval="monthly"))
    assert billed(lives, "sub", us(2026, 11, 4), NOVEMBER_5 - 1).at_us == us(2026, 11, 4)
    assert billed(lives, "sub", us(2026, 11, 4), NOVEMBER_5).at_us == NOVEMBER_5
    assert billed(lives[:1], "sub", us(2026, 11, 4), NOVEMBER_5).held == ENDED
    assert billed(lives, "sub", us(2026, 11, 4), us(2026, 12, 3)).at_us == DECEMBER


def test_a_period_whose_plan_does_not_charge_the_metric_bills_none_of_it() -> None:
    seats = charging(Period("sub", OCTOBER, NOVEMBER_5, interval="monthly"), ())
    llm = charging(Period("sub", NOVEMBER_5, interval="monthly"), ("ai_usage",))
    assert billed((seats,), "sub", OCTOBER, OCTOBER, "ai_usage").held == NO_CHARGE
    assert billed((seats, llm), "sub", OCTOBER, OCTOBER, "ai_usage").at_us == NOVEMBER_5


def charging(period: Period, charged: tuple[str, ...]) -> Period:
    return msgspec.structs.replace(period, charged=charged)


def test_an_anniversary_starts_on_the_day_of_the_subscription() -> None:
    anniversary = Period("sub", us(2026, 1, 31, 9), interval="monthly", anchor=us(2026, 1, 31, 9))
    assert running_since(anniversary, us(2026, 3, 15)) == us(2026, 2, 28)
    assert running_since(anniversary, us(2026, 3, 31)) == us(2026, 3, 31)
    assert running_since(anniversary, us(2026, 2, 1)) == us(2026, 1, 31, 9)


def test_the_customers_time_zone_decides_when_a_day_ends() -> None:
    """Lago Premium invoices a customer in Paris at midnight of Paris."""
    paris = Period("sub", OCTOBER, interval="monthly", timezone="Europe/Paris")
    border = us(2026, 10, 31, 23)
    assert running_since(paris, border) == border
    assert running_since(paris, border - 1) == OCTOBER  # it began two hours into Paris' October
    nowhere = Period("sub", OCTOBER, interval="monthly", timezone="Europe/Nowhere")
    assert running_since(nowhere, NOVEMBER_5) == NOVEMBER


def test_with_the_policy_hold_usage_that_would_be_moved_is_held_with_its_reason() -> None:
    late = billed((MONTHLY,), "sub", LATE_OCTOBER, NOVEMBER_5)
    assert held_for(late, LATE_OCTOBER, OutOfPeriodPolicy.HOLD) == LATE_PERIOD
    early = billed((Period("sub", NOVEMBER),), "sub", LATE_OCTOBER, NOVEMBER_5)
    assert held_for(early, LATE_OCTOBER, OutOfPeriodPolicy.HOLD) == OUTSIDE_PERIOD
    assert held_for(early, LATE_OCTOBER, OutOfPeriodPolicy.SHIFT) == ""


moments = st.integers(us(2024, 1, 1), us(2030, 1, 1))


@given(st.sampled_from(sorted(MONTHS)), st.booleans(), moments, moments, moments)
def test_usage_is_billed_at_a_time_that_lago_still_invoices(
    interval: str, anniversary: bool, started: int, at_us: int, now_us: int
) -> None:
    """Never before the running billing period, never before the usage, and never moved without need."""
    one = Period("sub", started, interval=interval, anchor=started if anniversary else None)
    found = billed((one,), "sub", at_us, now_us)
    since = running_since(one, now_us)
    assert found.at_us == max(at_us, since)
    assert since >= started and (since <= now_us or since == started)
    assert now_us - since <= 367 * DAY_US or since == started
    assert billed((one,), "sub", found.at_us, now_us).at_us == found.at_us
    assert since % DAY_US == 0 or since == started
    assert found.at_us % SECOND_US == at_us % SECOND_US or found.at_us != at_us
