"""Finds the timestamp at which Lago still bills usage: within the subscription's life, in a billing period without an
invoice.

Lago accepts usage for a billing period after its invoice, and never bills it (docs/lago-behaviour.md, 4.1). Lago looks
once an hour for periods to invoice. So between the end of the period and the invoice, only Lago knows whether the
invoice will contain the usage. Therefore a billing period counts as invoiced as soon as it is over, and a subscription
as soon as it has ended (docs/adr/0020).
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from schemas.customers import Period
from schemas.moments import HOUR_US, to_datetime, to_us
from streams.core.mapping.held_reasons import ENDED, NO_CHARGE, WRONG_CURRENCY
from streams.core.mapping.plan_intervals import MONTHS, period

_DAY_US = 24 * HOUR_US


class Billed(NamedTuple):
    """When usage is billed, microseconds since 1970 UTC. If `held` is set, it is not billed, and `held` is the reason.

    `invoiced`: the usage lies in the subscription's life, in a billing period that has been invoiced since.
    """

    at_us: int
    held: str = ""
    invoiced: bool = False


def charges(period: Period, code: str) -> bool:
    """Return whether the subscription's plan charges the metric. It is assumed while the charges are not known."""
    return not code or period.charged is None or code in period.charged


def charged_codes(periods: Sequence[Period], now_us: int) -> frozenset[str] | None:
    """Return the codes of the metrics that the subscriptions which run now or later charge; None = there is no such
    subscription, or the charges of one are not known.
    """
    codes = [period.charged for period in periods if not over(period, now_us)]
    known = [one for one in codes if one is not None]
    return frozenset().union(*known) if codes and len(known) == len(codes) else None


def reads_dollars(period: Period) -> bool:
    """Return whether Lago reads our cents as cents of a dollar on this subscription. It is assumed while the plan is not
    known.
    """
    return not period.currency


def over(period: Period, now_us: int) -> bool:
    """Return whether the subscription has ended. Lago makes its last invoice at the end."""
    return period.terminated_at is not None and period.terminated_at <= now_us


def runs_at(period: Period, at_us: int) -> bool:
    """Return whether the subscription is active at `at_us`."""
    return period.started_at <= at_us and (period.terminated_at is None or at_us < period.terminated_at)


def running_since(period: Period, now_us: int) -> int:
    """Return the start of the billing period that contains `now_us`; the subscription's start if the interval is not
    known.
    """
    if period.interval not in MONTHS:
        return period.started_at
    return max(period.started_at, _began(period.interval, period.anchor, period.timezone, now_us))


def billed(
    periods: tuple[Period, ...], subscription: str, at_us: int, now_us: int, code: str = "", *, owed: bool = True
) -> Billed:
    """Return when Lago bills usage of `at_us` that arrives at `now_us`, on the subscription with this external id.

    Usually the result is `at_us`. If `at_us` is before the subscription's start or in an invoiced billing period, it is
    the start of the first billing period that is not invoiced. An external id can have several lives, because a change
    of plan ends one and begins the next. A subscription without a known life is used unchanged.

    Args:
        code: code of the metric.
        owed: whether the usage has an amount. Then it is held if no life of the subscription charges the metric in
            dollars.
    """
    own = [period for period in periods if period.external_id == subscription]
    if not own:
        return Billed(at_us)
    charging = [period for period in own if charges(period, code)]
    if not charging:
        if owed:
            return Billed(at_us, NO_CHARGE)
        charging = own
    if owed and not (charging := [period for period in charging if reads_dollars(period)]):
        return Billed(at_us, WRONG_CURRENCY)
    lived = any(runs_at(period, at_us) for period in charging)
    later = [
        max(at_us, running_since(period, now_us))
        for period in charging
        if not over(period, now_us) and (period.terminated_at is None or at_us < period.terminated_at)
    ]
    if not later:
        return Billed(at_us, ENDED)
    first = min(later)
    return Billed(first, invoiced=first != at_us and lived)


def _began(interval: str, anchor: int | None, timezone: str, now_us: int) -> int:
    if not timezone:
        return _midnight_of(interval, None if anchor is None else anchor // _DAY_US, "", now_us // _DAY_US)
    zone = zone_of(timezone)
    first = None if anchor is None else _number(to_datetime(anchor).astimezone(zone).date())
    return _midnight_of(interval, first, timezone, _number(to_datetime(now_us).astimezone(zone).date()))


@lru_cache(maxsize=4096)
def _midnight_of(interval: str, anchor: int | None, timezone: str, day: int) -> int:
    """Return the first moment of the billing period that contains a day; days are counted from 1970-01-01."""
    first, _ = period(interval, None if anchor is None else _day(anchor), _day(day))
    return to_us(datetime.combine(first, time(), zone_of(timezone)))


@lru_cache(maxsize=512)
def zone_of(timezone: str) -> tzinfo:
    """Return the time zone with this IANA name; UTC for `""` and for a name that this machine does not know."""
    try:
        return ZoneInfo(timezone) if timezone else UTC
    except (KeyError, ValueError, OSError):
        return UTC


def _day(number: int) -> date:
    return date(1970, 1, 1) + timedelta(number)


def _number(day: date) -> int:
    return (day - date(1970, 1, 1)).days
