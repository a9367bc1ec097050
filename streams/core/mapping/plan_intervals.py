"""Computes the billing period that contains a day, from plan interval and billing time.

Source: `app/services/subscriptions/dates/*_service.rb` of lago-api. Days are those of the customer's time zone, which
is UTC without a premium licence.
"""

from calendar import monthrange
from datetime import date, timedelta

#: Number of months of an interval; `weekly` has none.
MONTHS = {"weekly": 0, "monthly": 1, "quarterly": 3, "semiannual": 6, "yearly": 12}

#: Number of intervals in a year, to compare two plans (`Plan#yearly_amount_cents`).
PER_YEAR = {"weekly": 52, "monthly": 12, "quarterly": 4, "semiannual": 2, "yearly": 1}


def period(interval: str, anchor: date | None, on: date) -> tuple[date, date]:
    """Return the period `[first day, first day of the next)` that contains `on`.

    Args:
        interval: a key of `MONTHS`.
        anchor: the subscription's day for anniversary billing; None for calendar billing.
    """
    months = MONTHS[interval]
    if not months:
        first = on - timedelta((on - anchor).days % 7 if anchor else on.weekday())
        return first, first + timedelta(7)
    if anchor is None:
        first = date(on.year, (on.month - 1) // months * months + 1, 1)
        return first, add_months(first, months)
    steps = ((on.year - anchor.year) * 12 + on.month - anchor.month) // months
    if add_months(anchor, steps * months) > on:
        steps -= 1
    return add_months(anchor, steps * months), add_months(anchor, (steps + 1) * months)


def add_months(start: date, months: int) -> date:
    """Return the same day some months later, or the last day of that month."""
    years, month = divmod(start.month - 1 + months, 12)
    year = start.year + years
    return date(year, month + 1, min(start.day, monthrange(year, month + 1)[1]))
