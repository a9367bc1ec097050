"""Previews the cost of a change of an org's plan: with Lago's own preview if there is one, otherwise with Lago's rules."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from connectors.billing.org_accounts import NO_SUBSCRIPTION, OrgAccounts, day_of
from connectors.billing.plan_change import NEVER, NOW, ChargeLine, PlanChange, PlanFee, plan_change
from connectors.lago.errors import LagoRejected
from connectors.lago.requests import ChangePreview, PreviewedChange, PreviewOf
from connectors.lago.responses import InvoicePreview, Plan, Subscription
from schemas.moments import to_datetime
from streams.core.mapping.plan_intervals import MONTHS

#: The parts of an invoice that the computation by rules leaves out.
LEFT_OUT: Final = ("taxes", "coupons", "wallets", "credit notes of earlier changes")


@dataclass(frozen=True, slots=True)
class PreviewLine:
    """A line of an invoice or a credit note for the days `[from_day, until_day)`, ISO 8601; None = Lago returns no
    days.
    """

    kind: Literal["fee", "usage", "credit"]
    code: str
    amount_cents: int
    currency: str
    due: str | None
    from_day: str | None = None
    until_day: str | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """The preview of a change of plan.

    Fields:
        applies_on: the day, UTC.
        charged_cents: amount of the invoice at the change. If the change applies now, it includes the usage of the
            running period.
        credited_cents: credit for paid days that are not used.
        computed_by: `lago`: Lago's own preview, with taxes; `rules`: without the parts in `left_out`.
    """

    org_id: str
    external_subscription_id: str
    from_plan: str
    to_plan: str
    applies: Literal["now", "at_period_end", "never"]
    applies_on: str
    currency: str
    charged_cents: int = 0
    credited_cents: int = 0
    computed_by: Literal["lago", "rules"] = "rules"
    lines: tuple[PreviewLine, ...] = ()
    left_out: tuple[str, ...] = ()


class PlanPreviews:
    """Makes previews. Args: now_us: microseconds since 1970 UTC."""

    def __init__(self, accounts: OrgAccounts, now_us: Callable[[], int]) -> None:
        self._accounts = accounts
        self._now_us = now_us

    async def of(self, org_id: str, plan_code: str) -> Preview:
        """Preview a change of the org's plan. Nothing is changed.

        Raises:
            LagoRejected: `unknown_org`, `no_subscription`, `other_currency`, `unknown_interval`; code `plan_not_found`.
            LagoIntegrationError: Lago does not answer, so a part of the sum is unknown.
        """
        running = (await self._accounts.account(org_id)).subscription
        if running is None or running.status != "active" or running.started_at is None:
            raise LagoRejected(NO_SUBSCRIPTION, "the org has no running subscription")
        old = terms_of(await self._accounts.plan(running.plan_code or ""))
        new = terms_of(await self._accounts.plan(plan_code))
        if old.currency != new.currency:
            raise LagoRejected("other_currency", "the plans are in two currencies")
        change = self._reckoned(running, old, new)
        base = Preview(
            org_id=org_id,
            external_subscription_id=running.external_id,
            from_plan=old.code,
            to_plan=new.code,
            applies=change.applies,
            applies_on=change.on.isoformat(),
            currency=new.currency,
        )
        if change.applies == NEVER:
            return base
        preview = ChangePreview(
            customer=PreviewOf(external_id=org_id),
            subscriptions=PreviewedChange(external_ids=(running.external_id,), plan_code=plan_code),
        )
        predicted = await self._accounts.billing.lago.predicted(preview)
        if predicted is not None:
            return _as_predicted(base, predicted, change)
        lines = (*await self._used(org_id, running, change), *map(_line, change.lines))
        due = [line for line in lines if line.due == change.on.isoformat()]
        return replace(
            base,
            charged_cents=sum(line.amount_cents for line in due if line.kind != "credit"),
            credited_cents=sum(line.amount_cents for line in due if line.kind == "credit"),
            lines=lines,
            left_out=(*LEFT_OUT, *_not_yet(change)),
        )

    def _reckoned(self, running: Subscription, old: PlanFee, new: PlanFee) -> PlanChange:
        begun = running.subscription_at or running.started_at or ""
        anchor = day_of(begun) if running.billing_time == "anniversary" else None
        today = to_datetime(self._now_us()).date()
        return plan_change(old, new, anchor=anchor, started=day_of(running.started_at or ""), today=today)

    async def _used(self, org_id: str, running: Subscription, change: PlanChange) -> tuple[PreviewLine, ...]:
        """Return the usage on the subscription's last invoice, if the change applies now."""
        if change.applies != NOW:
            return ()
        usage = await self._accounts.billing.lago.usage(org_id, running.external_id)
        if usage is None:
            raise LagoRejected(NO_SUBSCRIPTION, "the subscription has ended meanwhile")
        day = change.on.isoformat()
        return tuple(
            PreviewLine("usage", charge.billable_metric.code, charge.amount_cents, usage.currency, day)
            for charge in usage.charges_usage
        )


def terms_of(plan: Plan) -> PlanFee:
    """Return the terms of a plan. Raises: LagoRejected `unknown_interval`: Meterbridge does not know this interval of
    Lago.
    """
    if plan.interval not in MONTHS:
        raise LagoRejected("unknown_interval", f"the plan {plan.code} has the interval {plan.interval or 'null'}")
    return PlanFee(plan.code, plan.interval, plan.amount_cents, plan.amount_currency, plan.pay_in_advance)


def _as_predicted(base: Preview, predicted: InvoicePreview, change: PlanChange) -> Preview:
    """Return Lago's preview of the invoice. Lines that are due later are added by rules, because Lago does not show
    them.
    """
    later = [line for line in change.lines if line.due > change.on]
    return replace(
        base,
        charged_cents=predicted.total_amount_cents,
        credited_cents=predicted.credit_notes_amount_cents,
        computed_by="lago",
        lines=(*_predicted_lines(predicted), *map(_line, later)),
        left_out=_not_yet(change),
    )


def _not_yet(change: PlanChange) -> tuple[str, ...]:
    return () if change.applies == NOW else ("usage until then",)


def _predicted_lines(predicted: InvoicePreview) -> Iterator[PreviewLine]:
    for fee in predicted.fees:
        kind: Literal["fee", "usage"] = "usage" if fee.item.type == "charge" else "fee"
        days = fee.from_date, fee.to_date
        yield PreviewLine(kind, fee.item.code, fee.amount_cents, predicted.currency, predicted.issuing_date, *days)


def _line(line: ChargeLine) -> PreviewLine:
    days = line.from_day.isoformat(), line.until_day.isoformat()
    return PreviewLine(line.kind, line.plan_code, line.amount_cents, line.currency, line.due.isoformat(), *days)
