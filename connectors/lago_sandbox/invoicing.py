"""Computes when a subscription is billed, and for which periods, cut at its beginning and its end.

Source: `app/services/invoices/calculate_fees_service.rb`, `fees/subscription_service.rb`,
`subscriptions/dates_service.rb`, `app/services/utils/datetime.rb`, `app/models/subscription.rb`
(`date_diff_with_timezone`) of lago-api.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Context, Decimal

from connectors.lago_sandbox.instants import DAY_US, day, midnight
from connectors.lago_sandbox.subscription import SandboxSubscription
from schemas.moments import SECOND_US

_ROUNDING = Context(prec=60, rounding=ROUND_HALF_UP)
_MS = 1000


@dataclass(slots=True, frozen=True)
class DueInvoice:
    """The content of one invoice; moments in microseconds since 1970 UTC.

    Fields:
        at_us: when it is due.
        from_us, until_us: events in `[from, until)` are charged; both equal: no charges.
        fee_cents: the subscription's own fee; None = the invoice has none.
        fee_from_us, fee_until_us: the time that this fee covers, `[from, until)`.
        reason: why it is made, in Lago's word.
        delay_us: how long after `at_us` Lago counts and shows it; events that arrive later are not on it.
    """

    subscription: SandboxSubscription
    at_us: int
    from_us: int
    until_us: int
    fee_cents: int | None
    fee_from_us: int = 0
    fee_until_us: int = 0
    reason: str = "subscription_periodic"
    delay_us: int = 0

    @property
    def counted_us(self) -> int:
        """When Lago counts the events."""
        return self.at_us + self.delay_us


def bills(
    subscription: SandboxSubscription,
    following: SandboxSubscription | None,
    after_us: int,
    now_us: int,
    delay_us: int = 0,
) -> Iterator[DueInvoice]:
    """Yield every invoice that is due in `(after, now]`, in order; none for a time before the subscription was created.

    Args:
        following: the subscription that replaced it, if one did.
        delay_us: how long after an end Lago counts its invoice, microseconds.
    """
    if subscription.started_us is None:
        return
    upgraded = following is not None and following.plan.yearly_cents >= subscription.plan.yearly_cents
    if subscription.plan.pay_in_advance:
        first = _advance(subscription, subscription.started_us)
        if after_us < first.at_us <= now_us:
            yield replace(first, reason="subscription_starting")
    ended = subscription.terminated_us
    start = subscription.started_us
    while start <= now_us and (ended is None or start < ended):
        _, period_end = subscription.charge_period(start)
        closing = ended is not None and ended <= period_end
        stop = min(period_end, ended) if ended is not None else period_end
        waits_us = delay_us if closing else 0
        made = after_us < stop + waits_us <= now_us and stop > subscription.created_us
        if made and not (closing and subscription.ends_without_invoice):
            bill = _bill(subscription, following, start, stop, closing=closing, upgraded=closing and upgraded)
            reason = "subscription_terminating" if closing else bill.reason
            yield replace(bill, reason=reason, delay_us=waits_us)
        start = stop


def _bill(
    subscription: SandboxSubscription,
    following: SandboxSubscription | None,
    start: int,
    stop: int,
    *,
    closing: bool,
    upgraded: bool,
) -> DueInvoice:
    """Return the bill of one stretch; `stop` is the period's end, or the subscription's."""
    took_over = following is not None and following.started_us == subscription.terminated_us
    period_end = subscription.charge_period(start)[1]
    # A subscription runs until its last millisecond, unless the next subscription begins at that moment.
    until = stop if stop == period_end or (closing and took_over) else stop // _MS * _MS + _MS
    if subscription.plan.pay_in_advance:
        fee = None if closing or stop != subscription.period_end(start) else _advance(subscription, stop)
        return DueInvoice(
            subscription,
            stop,
            start,
            until,
            *((fee.fee_cents, fee.fee_from_us, fee.fee_until_us) if fee else (None, 0, 0)),
        )
    if not closing and stop != subscription.period_end(start):
        return DueInvoice(subscription, stop, start, until, None)
    period_start, _ = subscription.plan_period(start)
    first = max(period_start, midnight(day(subscription.started_us or 0)))
    days = _days(first, stop) if stop == period_end else _days(first, stop + (0 if stop % DAY_US else SECOND_US))
    return DueInvoice(
        subscription, stop, start, until, _prorated(subscription, start, max(0, days - upgraded)), first, stop
    )


def _advance(subscription: SandboxSubscription, at_us: int) -> DueInvoice:
    """Return the fee of the period that contains the moment, from that day on; the whole amount for the first period of
    an anniversary subscription.
    """
    period_start, period_end = subscription.plan_period(at_us)
    first = max(period_start, midnight(day(at_us)))
    cents = _prorated(subscription, at_us, _days(first, period_end))
    return DueInvoice(subscription, at_us, at_us, at_us, cents, first, period_end)


def _prorated(subscription: SandboxSubscription, on_us: int, days: int) -> int:
    """Return the plan's amount for so many days, rounded once, half up."""
    period_start, period_end = subscription.plan_period(on_us)
    exact = _ROUNDING.divide(Decimal(subscription.plan.amount_cents * days), _days(period_start, period_end))
    return int(exact.quantize(Decimal(1), context=_ROUNDING))


def _days(from_us: int, until_us: int) -> int:
    """Days begun in `[from, until)`."""
    return -(-(until_us - from_us) // DAY_US)
