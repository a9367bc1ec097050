"""The cost of a plan change: every day of a period is paid once, with any two plans."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from connectors.billing.plan_change import PlanChange, PlanFee, plan_change
from streams.core.mapping.plan_intervals import MONTHS, period

MARCH_1, MARCH_11, APRIL_1 = date(2025, 3, 1), date(2025, 3, 11), date(2025, 4, 1)
BASIC, PRO = PlanFee("basic", "monthly", 3100, "USD", False), PlanFee("pro", "monthly", 6200, "USD", False)

intervals = st.sampled_from(sorted(MONTHS))
days = st.dates(date(2020, 1, 1), date(2035, 12, 31))


@st.composite
def terms(draw: st.DrawFn, code: str) -> PlanFee:
    return PlanFee(code, draw(intervals), draw(st.integers(0, 10**9)), "USD", draw(st.booleans()))


@st.composite
def changes(draw: st.DrawFn) -> tuple[PlanFee, PlanFee, date | None, date, date, PlanChange]:
    old, new = draw(terms("old")), draw(terms("new"))
    started = draw(days)
    anchor = draw(st.sampled_from([None, started - timedelta(draw(st.integers(0, 900)))]))
    today = started + timedelta(draw(st.integers(0, 900)))
    change = plan_change(old, new, anchor=anchor, started=started, today=today)
    return old, new, anchor, started, today, change


def preview_lines(change: PlanChange) -> list[tuple[str, str, int, date]]:
    return [(line.kind, line.plan_code, line.amount_cents, line.due) for line in change.lines]


def test_after_an_upgrade_the_old_plan_is_paid_until_yesterday_and_the_new_one_from_today() -> None:
    """
    March   1 .......... 11          31
    basic   |-----------|                 10 of 31 days of $31
    pro                  [-----------|    21 of 31 days of $62
    """
    change = plan_change(BASIC, PRO, anchor=None, started=MARCH_1, today=MARCH_11)
    assert (change.applies, change.on) == ("now", MARCH_11)
    assert preview_lines(change) == [("fee", "basic", 1000, MARCH_11), ("fee", "pro", 4200, APRIL_1)]


def test_an_advance_payment_is_credited_from_today_on() -> None:
    old, new = PlanFee("basic", "monthly", 3100, "USD", True), PlanFee("pro", "monthly", 6200, "USD", True)
    change = plan_change(old, new, anchor=None, started=MARCH_1, today=MARCH_11)
    assert preview_lines(change) == [("credit", "basic", 2100, MARCH_11), ("fee", "pro", 4200, MARCH_11)]


def test_a_downgrade_waits_for_the_end_of_the_period_and_the_running_plan_is_paid_in_full() -> None:
    change = plan_change(PRO, BASIC, anchor=None, started=MARCH_1, today=MARCH_11)
    assert (change.applies, change.on) == ("at_period_end", APRIL_1)
    assert preview_lines(change) == [("fee", "pro", 6200, APRIL_1), ("fee", "basic", 3100, date(2025, 5, 1))]


def test_two_plans_are_compared_by_their_yearly_price() -> None:
    yearly = PlanFee("yearly", "yearly", 3100 * 12, "USD", False)
    assert plan_change(BASIC, yearly, anchor=None, started=MARCH_1, today=MARCH_11).applies == "now"
    cheaper = PlanFee("yearly", "yearly", 3100 * 12 - 1, "USD", False)
    assert plan_change(BASIC, cheaper, anchor=None, started=MARCH_1, today=MARCH_11).applies == "at_period_end"


def test_a_change_to_the_same_plan_is_no_change() -> None:
    assert plan_change(PRO, PRO, anchor=None, started=MARCH_1, today=MARCH_11) == PlanChange("never", MARCH_11)


def test_half_a_cent_is_rounded_up() -> None:
    """$0.29 a month: 15 of 30 days of April are 14.5 cents."""
    old = PlanFee("old", "monthly", 29, "USD", False)
    change = plan_change(old, PRO, anchor=None, started=APRIL_1, today=date(2025, 4, 16))
    assert change.lines[0].amount_cents == 15


@given(changes())
def test_no_amount_is_negative_and_no_fee_exceeds_the_plans_fee(
    case: tuple[PlanFee, PlanFee, date | None, date, date, PlanChange],
) -> None:
    old, new, _, _, today, change = case
    for line in change.lines:
        whole = old.amount_cents if line.plan_code == "old" else new.amount_cents
        assert 0 <= line.amount_cents <= whole
        assert today <= line.due
        assert line.from_day <= line.until_day


@given(changes())
def test_every_day_of_the_running_period_is_paid_once(
    case: tuple[PlanFee, PlanFee, date | None, date, date, PlanChange],
) -> None:
    """In arrears the old and the new plan meet without a gap; in advance the credited days are those that the new plan
    charges.
    """
    old, _, anchor, started, today, change = case
    begin, end = period(old.interval, anchor, today)
    closing = [line for line in change.lines if line.plan_code == "old"]
    [opening] = [line for line in change.lines if line.plan_code == "new"]
    assert opening.from_day == change.on
    if old.pay_in_advance:
        assert [(line.kind, line.from_day, line.until_day) for line in closing] == (
            [("credit", today, end)] if change.applies == "now" else []
        )
    else:
        assert [(line.kind, line.from_day, line.until_day) for line in closing] == [
            ("fee", max(begin, started), change.on)
        ]


@given(st.integers(0, 10**9), st.booleans(), days, st.integers(0, 400))
def test_a_change_between_plans_of_equal_price_costs_the_same_as_no_change(
    cents: int, advance: bool, started: date, later: int
) -> None:
    """Within one cent, because the two parts are rounded separately."""
    today = started + timedelta(later)
    old, new = PlanFee("old", "monthly", cents, "USD", advance), PlanFee("new", "monthly", cents, "USD", advance)
    change = plan_change(old, new, anchor=started, started=started, today=today)
    sign = {"fee": 1, "credit": -1}
    total = sum(sign[line.kind] * line.amount_cents for line in change.lines)
    assert abs(total - (0 if advance else cents)) <= 1
