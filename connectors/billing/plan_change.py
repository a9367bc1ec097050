"""Computes when a change of plan applies and what it costs, by Lago's rules (docs/lago-behaviour.md, 5.4 and 5.5).

It covers only the plans' own fees, without usage, taxes, coupons, wallets and trials. Days are UTC.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Final, Literal

from streams.core.mapping.plan_intervals import PER_YEAR, period

#: When a change applies: at once if the new plan costs at least as much for a year, otherwise at the end of the period.
NOW: Final = "now"
AT_PERIOD_END: Final = "at_period_end"
NEVER: Final = "never"

_ROUNDING = Context(prec=60, rounding=ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class PlanFee:
    """The fee of a plan: `amount_cents` for each `interval`, in the currency's smallest unit."""

    code: str
    interval: str
    amount_cents: int
    currency: str
    pay_in_advance: bool

    @property
    def yearly_cents(self) -> int:
        """The fee for a year. It decides which of two plans costs more."""
        return self.amount_cents * PER_YEAR[self.interval]


@dataclass(frozen=True, slots=True)
class ChargeLine:
    """An amount for the days `[from_day, until_day)` of a plan.

    Fields:
        kind: `fee` is charged, `credit` is refunded; the amount is never negative.
        due: day of the invoice or credit note.
        of_days: the number of days for which the plan's whole amount is charged.
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
    """The day of the change, and all fees and credits up to the end of the new plan's first period."""

    applies: Literal["now", "at_period_end", "never"]
    on: date
    lines: tuple[ChargeLine, ...] = ()


def plan_change(old: PlanFee, new: PlanFee, *, anchor: date | None, started: date, today: date) -> PlanChange:
    """Compute the change of a subscription from the plan `old` to the plan `new` today.

    Args:
        anchor: the subscription's day for anniversary billing; None for calendar billing.
        started: the day on which the active subscription began. An upgrade begins a new one.
    """
    if new.code == old.code:
        return PlanChange(NEVER, today)
    _, old_end = period(old.interval, anchor, today)
    upgrade = new.yearly_cents >= old.yearly_cents
    on = today if upgrade else old_end
    lines = (*_closing(old, anchor, started, today, on), _opening(new, anchor, on))
    return PlanChange(NOW if upgrade else AT_PERIOD_END, on, lines)


def _closing(old: PlanFee, anchor: date | None, started: date, today: date, on: date) -> Iterator[ChargeLine]:
    """Return a fee for the days before `on` if they are not paid yet, or a credit for the days from `on` on if they are
    paid.
    """
    begin, end = period(old.interval, anchor, today)
    if not old.pay_in_advance:
        yield _line("fee", old, max(begin, started), on, (end - begin).days, due=on)
    elif on < end:
        yield _line("credit", old, on, end, (end - begin).days, due=on)


def _opening(new: PlanFee, anchor: date | None, on: date) -> ChargeLine:
    """Return the fee from `on` to the end of the new plan's period. Its interval may differ from the old plan's."""
    begin, end = period(new.interval, anchor, on)
    return _line("fee", new, on, end, (end - begin).days, due=on if new.pay_in_advance else end)


def _line(
    kind: Literal["fee", "credit"], terms: PlanFee, from_day: date, until_day: date, of_days: int, *, due: date
) -> ChargeLine:
    """Return the plan's amount for these days, rounded once, half up."""
    exact = _ROUNDING.divide(Decimal(terms.amount_cents * (until_day - from_day).days), Decimal(of_days))
    cents = int(exact.quantize(Decimal(1), context=_ROUNDING))
    return ChargeLine(kind, terms.code, from_day, until_day, of_days, cents, terms.currency, due)
