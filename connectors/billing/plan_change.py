"""What a change of plan costs and when, worked out beforehand by Lago's rules (docs/lago-behaviour.md, 5.4 and 5.5).

Only the plans' own fees: usage, taxes, coupons, wallets and trials are Lago's to count. Days are UTC.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Final, Literal

from streams.core.mapping.plan_intervals import PER_YEAR, period

#: When a change applies: a plan that costs as much or more a year at once, a cheaper one when the period ends.
NOW: Final = "now"
AT_PERIOD_END: Final = "at_period_end"
NEVER: Final = "never"

_ROUNDING = Context(prec=60, rounding=ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class PlanFee:
    """A plan's own fee: `amount_cents` an `interval`, in the currency's smallest unit."""

    code: str
    interval: str
    amount_cents: int
    currency: str
    pay_in_advance: bool

    @property
    def yearly_cents(self) -> int:
        """The fee of a year; it decides which of two plans is the dearer one."""
        return self.amount_cents * PER_YEAR[self.interval]


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """Money for the days `[from_day, until_day)` of a plan.

    Fields:
        kind: `fee` is charged, `credit` is given back; the amount is never negative.
        due: the day of its invoice, or of its credit note.
        of_days: how many days the plan's whole amount is for.
    """

    kind: Literal["fee", "credit"]
    plan_code: str
    from_day: date
    until_day: date
    of_days: int
    amount_cents: int
    currency: str
    due: date


@dataclass(frozen=True, slots=True)
class PlanChange:
    """When the plan changes, and every fee and credit up to the end of the new plan's first period."""

    applies: Literal["now", "at_period_end", "never"]
    on: date
    lines: tuple[ChargeLine, ...] = ()


def plan_change(old: PlanFee, new: PlanFee, *, anchor: date | None, started: date, today: date) -> PlanChange:
    """What becomes of a subscription to `old` that is changed to `new` today.

    Args:
        anchor: the subscription's day for anniversary billing; None for calendar billing.
        started: when the running subscription began, its own upgrades counted as beginnings.
    """
    if new.code == old.code:
        return PlanChange(NEVER, today)
    _, old_end = period(old.interval, anchor, today)
    upgrade = new.yearly_cents >= old.yearly_cents
    on = today if upgrade else old_end
    lines = (*_closing(old, anchor, started, today, on), _opening(new, anchor, on))
    return PlanChange(NOW if upgrade else AT_PERIOD_END, on, lines)


def _closing(old: PlanFee, anchor: date | None, started: date, today: date, on: date) -> Iterator[ChargeLine]:
    """The days before `on`, if they are still to be paid; those from then on, if they have been paid."""
    begin, end = period(old.interval, anchor, today)
    if not old.pay_in_advance:
        yield _line("fee", old, max(begin, started), on, (end - begin).days, due=on)
    elif on < end:
        yield _line("credit", old, on, end, (end - begin).days, due=on)


def _opening(new: PlanFee, anchor: date | None, on: date) -> ChargeLine:
    """From `on` to the end of the new plan's period, which may be another interval's."""
    begin, end = period(new.interval, anchor, on)
    return _line("fee", new, on, end, (end - begin).days, due=on if new.pay_in_advance else end)


def _line(
    kind: Literal["fee", "credit"], terms: PlanFee, from_day: date, until_day: date, of_days: int, *, due: date
) -> ChargeLine:
    """So many days of the plan's amount, rounded once, half up."""
    exact = _ROUNDING.divide(Decimal(terms.amount_cents * (until_day - from_day).days), Decimal(of_days))
    cents = int(exact.quantize(Decimal(1), context=_ROUNDING))
    return ChargeLine(kind, terms.code, from_day, until_day, of_days, cents, terms.currency, due)
