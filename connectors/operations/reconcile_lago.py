"""Compares the delivered events with Lago's bills: the current usage and the last invoice of a running subscription,
and the last invoice of an ended one.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from connectors.billing.org_sync import BEGUN
from connectors.billing.plan_terms import period_with
from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected
from connectors.lago.responses import Fee, Invoice, Subscription
from connectors.lago.subscriptions import STATUSES
from connectors.operations.after_invoice import not_invoiced
from connectors.operations.delivered import DeliveredRows, lost_pages
from connectors.operations.invoice_status import SubscriptionComparison, deciding, is_final, not_final, together
from connectors.operations.last_invoice import INVOICED_US, INVOICES, Life, latest, lives_of
from connectors.operations.plan_prices import PlanPrices
from connectors.postgres.pool import Database
from schemas.customers import OrgRecord
from schemas.moments import HOUR_US, MAX_US, SECOND_US, parse_us, to_datetime, to_iso
from schemas.money import EXACT, ZERO, add, plain, total
from schemas.organizations import DEFAULT
from schemas.plurals import numbered
from streams.core.delivery.after_end import UNBILLABLE_ENDED
from streams.core.delivery.maybe_sent import lago_may_have
from streams.core.delivery.receipt_states import COMPLETED, FAILED, PENDING, PROCESSING, UNBILLABLE
from streams.core.metering.reconciliation import HALF_A_CENT, LagoUsage, complaint_about_lago
from streams.runtime import clock

_SUBSCRIPTIONS = """
SELECT DISTINCT e.external_subscription_id, e.org_id FROM lago_events e LEFT JOIN organisations o USING (org_id)
WHERE e.org_id <> '' AND COALESCE(o.organization, '') = $1 ORDER BY e.external_subscription_id, e.org_id
"""
_ORGANIZATIONS = """
SELECT DISTINCT o.organization FROM lago_events e JOIN organisations o USING (org_id) ORDER BY o.organization
"""
_SEALED = """
SELECT e.status, COALESCE(e.reason, ''), e.maybe_sent, COALESCE(sum(e.amount_cents), 0)
FROM lago_events e LEFT JOIN organisations o USING (org_id)
WHERE e.external_subscription_id = $1 AND e.billed_at >= $2 AND e.billed_at < $3 AND ($4 = '' OR e.org_id = $4)
    AND COALESCE(o.organization, '') = $5
GROUP BY 1, 2, 3
"""
#: A subscription that ended longer ago is not compared, because an earlier run has compared it.
_ENDED_US: Final = 40 * 24 * HOUR_US
#: The time for which a missing invoice is reported, at most.
_MONTH_US: Final = 31 * 24 * HOUR_US


@dataclass(slots=True)
class LagoComparison:
    """The result for all subscriptions.

    Fields:
        subscriptions: number of subscriptions of which every due amount was compared.
        complaints: a sentence for each one that does not add up.
        not_compared: number of the other subscriptions: Lago has no final invoice of the last period, or it was not read.
        notes: a sentence for each one of them that a person should look at.
    """

    subscriptions: int
    complaints: list[str]
    not_compared: int = 0
    notes: list[str] = field(default_factory=list)


async def organizations_with_events(database: Database) -> list[str]:
    """Return the Lago organisations that have events; `""` = the default one. Raises: Unavailable."""
    async with database.connection() as connection:
        return [row[0] for row in await connection.fetch(_ORGANIZATIONS)]


async def compare_with_lago(
    database: Database, lago: LagoClient, code: str, now_us: int | None = None, organization: str = DEFAULT
) -> LagoComparison:
    """Compare each subscription that has an event. If Lago refuses a request about a subscription, that is a complaint.

    Args:
        code: code of the metric, `LAGO_EVENT_CODE`.
        now_us: microseconds since 1970 UTC; None = now.
        organization: the organisation of `lago`.

    Raises:
        Unavailable: Lago or Postgres does not answer.
    """
    look = _Comparison(database, lago, code, clock.now_us() if now_us is None else now_us, organization)
    async with database.connection() as connection:
        subscriptions = await connection.fetch(_SUBSCRIPTIONS, organization)
    compared = LagoComparison(0, [])
    for subscription, org_id in subscriptions:
        try:
            result = await look.at(subscription, org_id)
        except LagoRejected as error:
            compared.complaints.append(f"subscription {subscription} of {org_id} cannot be asked for: {error}")
            continue
        compared.subscriptions += result.complete
        compared.not_compared += not result.complete
        compared.complaints += filter(None, [result.complaint])
        compared.notes += filter(None, [result.note])
    return compared


class _Comparison:
    def __init__(self, database: Database, lago: LagoClient, code: str, now_us: int, organization: str) -> None:
        self._organization = organization
        self._database = database
        self._lago = lago
        self._code = code
        self._now_us = now_us
        self._prices = PlanPrices(database, lago, code)
        self._listed: dict[str, list[Invoice]] = {}
        self._invoices: dict[str, Invoice | None] = {}

    async def at(self, subscription: str, org_id: str) -> SubscriptionComparison:
        """Compare one subscription."""
        usage = await self._lago.current_usage(org_id, subscription, self._code)
        if usage is not None:
            delivered, waiting = await self._delivered(subscription, usage.from_us, usage.until_us)
            if delivered and not usage.lines:
                return SubscriptionComparison(
                    f"subscription {subscription}: its plan does not charge {self._code}, {delivered} cents were delivered"
                )
            listed = await self._lago.subscriptions(org_id, BEGUN)
            lives = [one for one in listed if one.external_id == subscription and one.started_at is not None]
            running = next((one for one in lives if one.terminated_at is None), None)
            plan = running.plan_code if running is not None else None
            if models := await self._prices.own_price(plan):
                free = await self._prices.is_free(plan)
                results = [await self._prices.looked_at(usage, delivered, models, org_id, free=free)]
            else:
                complaint = complaint_about_lago(usage, delivered, waiting)
                twice = await self._prices.paid_besides(usage, org_id)
                results = [
                    SubscriptionComparison(complaint, note=twice),
                    await self._of_last_period(usage, running, org_id),
                ]
            return together(*results, await self._of_earlier_lives(subscription, lives, org_id))
        listed = await self._lago.subscriptions(org_id, STATUSES)
        own = [one for one in listed if one.external_id == subscription]
        ended = [
            subscription
            for subscription in own
            if subscription.started_at is not None and subscription.terminated_at is not None
        ]
        if ended:
            last = max(ended, key=lambda one: str(one.terminated_at))
            result = await self._at_ended(last, org_id)
            if result.complaint:
                result.complaint += await self._overtaken(lives_of([last], (), 0), org_id)
            return result
        delivered, _ = await self._delivered(subscription, 0, MAX_US - 1, org_id)
        if not delivered:
            return SubscriptionComparison()
        return SubscriptionComparison(
            f"{_why(subscription, org_id, own)}, {plain(delivered)} cents were delivered to it"
        )

    async def _at_ended(self, ended: Subscription, org_id: str) -> SubscriptionComparison:
        """Compare the last invoice of an ended subscription, and complain about usage that was delivered after its end."""
        name, ended_us = ended.external_id, parse_us(str(ended.terminated_at)) + SECOND_US
        if ended_us < self._now_us - _ENDED_US:
            return SubscriptionComparison(complete=False)
        after, _ = await self._delivered(name, ended_us, MAX_US - 1, org_id)
        if after:
            at = to_iso(ended_us)
            sentence = f"{plain(after)} cents were delivered to it with a moment after its end at {at}"
            return SubscriptionComparison(f"subscription {name}: {sentence}: meterbridge lago rebill")
        return await self._at_last_invoice(ended, org_id, ended_us, "it has ended, and its last invoice counts")

    async def _at_last_invoice(
        self, ended: Subscription, org_id: str, ended_us: int, counts: str, *, is_followed: bool = False
    ) -> SubscriptionComparison:
        """Compare the last invoice of a subscription, or of a life of its id, that has ended.

        Args:
            ended_us: the second after its end.
            is_followed: whether another life of the id begins in the second of the end: usage of this second may belong
                to either.
        """
        name = ended.external_id
        if await self._prices.own_price(ended.plan_code):
            return SubscriptionComparison(complete=False)
        invoice, fees = await self._last_fees(ended, org_id)
        if invoice is None and len(self._listed[org_id]) >= INVOICES:
            return self._unread(name, org_id)
        if any(fee.pay_in_advance for fee in fees):
            return SubscriptionComparison(complete=False)  # each event has an invoice of its own
        until_us = max(
            (parse_us(str(fee.to_date)) + SECOND_US for fee in fees), default=parse_us(str(ended.started_at))
        )
        if fees and until_us >= ended_us - SECOND_US:
            from_us = min(parse_us(str(fee.from_date)) for fee in fees)
            if invoice is not None and not is_final(invoice):
                delivered, _ = await self._delivered(name, from_us, ended_us)
                return not_final(name, invoice, from_us, ended_us, delivered, self._now_us)
            cents, until_us = Decimal(sum(fee.amount_cents for fee in fees)), ended_us
        elif ended_us > self._now_us - INVOICED_US:
            return SubscriptionComparison(complete=False)
        else:  # no invoice contains the last days of the subscription
            from_us, until_us, cents = until_us, ended_us, Decimal(0)
        border_us = until_us - SECOND_US * is_followed
        delivered, waiting = await self._delivered(name, from_us, border_us)
        waiting = total([waiting, *(await self._delivered(name, border_us, until_us))])
        counted = LagoUsage(name, from_us, until_us, cents, len(fees))
        return SubscriptionComparison(complaint_about_lago(counted, delivered, waiting).replace("Lago counts", counts))

    async def _of_last_period(
        self, usage: LagoUsage, running: Subscription | None, org_id: str
    ) -> SubscriptionComparison:
        """Compare the billing period before the running one: its invoice may differ, or there may be none."""
        if running is None or usage.from_us <= parse_us(str(running.started_at)) + SECOND_US:
            return SubscriptionComparison()
        if usage.from_us < self._now_us - _ENDED_US:  # an earlier run has compared it
            return SubscriptionComparison()
        if usage.from_us > self._now_us - INVOICED_US:
            return SubscriptionComparison(complete=False)
        of_period: list[Invoice] = []
        from_us, invoiced_us = 0, 0
        async for invoice in self._whole_invoices(org_id):
            if any(fee.pay_in_advance for fee in self._fees_of_life(invoice, running)):
                return SubscriptionComparison(complete=False)  # each event has an invoice of its own
            bounds = _charged(invoice, running)
            if bounds is None:
                continue
            if abs(bounds[1] - usage.from_us) > SECOND_US:  # of an earlier period
                if of_period:
                    break
                invoiced_us = max(invoiced_us, bounds[1])  # it may be newer: a voided invoice was made again
                continue
            of_period.append(invoice)
            from_us = bounds[0]
        invoiced_us = 0 if of_period else invoiced_us
        last = deciding(of_period)
        if last is not None and is_final(last):
            return SubscriptionComparison(await self._of_invoice(last, running, from_us, usage.from_us))
        if last is None and not invoiced_us and len(self._listed[org_id]) >= INVOICES:
            return self._unread(usage.subscription, org_id)
        from_us = from_us or max(parse_us(str(running.started_at)), usage.from_us - _MONTH_US, invoiced_us)
        delivered, _ = await self._delivered(usage.subscription, from_us, usage.from_us)
        if last is not None:
            return not_final(usage.subscription, last, from_us, usage.from_us, delivered, self._now_us)
        if delivered < HALF_A_CENT:  # Lago may show no invoice of 0
            return SubscriptionComparison()
        between = f"from {to_iso(from_us)} to {to_iso(usage.from_us)}"
        return SubscriptionComparison(
            f"subscription {usage.subscription}: no invoice counts the time {between}, {plain(delivered)} cents were delivered"
        )

    def _unread(self, subscription: str, org_id: str) -> SubscriptionComparison:
        """Return the result for a subscription whose last invoice may be older than the invoices that were read."""
        return SubscriptionComparison(
            note=f"subscription {subscription}: its last invoice was not compared: it is not among the {INVOICES} latest "
            f"invoices of {org_id}, look at it in Lago",
            complete=False,
        )

    async def _of_invoice(self, invoice: Invoice, running: Subscription, from_us: int, until_us: int) -> str:
        """Return the complaint about an invoice of a subscription that still runs."""
        subscription, fees = running.external_id, self._fees_of_life(invoice, running)
        cents = Decimal(sum(fee.amount_cents for fee in fees))
        delivered, waiting = await self._delivered(subscription, from_us, until_us)
        counted = LagoUsage(subscription, from_us, until_us, cents, len(fees))
        between = f"from {to_iso(from_us)} to {to_iso(until_us)}"
        return complaint_about_lago(counted, delivered, waiting).replace("Lago counts", f"its invoice {between} counts")

    async def _of_earlier_lives(
        self, subscription: str, own: Sequence[Subscription], org_id: str
    ) -> SubscriptionComparison:
        """Compare the last invoices of the ended lives of a running subscription's id. A change of plan ends such a life."""
        lives = lives_of(own, [period_with(subscription, None) for subscription in own], self._now_us - _ENDED_US)
        if sentence := await self._overtaken(lives, org_id):
            words = f"subscription {subscription}: before it started again{sentence.replace(';', ',', 1)}"
            return SubscriptionComparison(words)
        ended_at = {life.lago_id: life.ended_us + SECOND_US for life in lives}
        counts = "before it started again, its last invoice counted"
        return together(
            *[
                await self._at_last_invoice(one, org_id, ended_at[one.lago_id], counts, is_followed=True)
                for one in own
                if one.lago_id in ended_at
            ]
        )

    async def _overtaken(self, lives: Sequence[Life], org_id: str) -> str:
        """Return a sentence about the part of the difference that reached, or may have reached, Lago after the last
        invoice.
        """
        rows, now_us = DeliveredRows(self._database, org_id, self._code), self._now_us
        verdict = await not_invoiced(rows, lives, org_id, self._lago, now_us, self._code, {})
        sums, sentence = defaultdict[str, tuple[int, Decimal]](lambda: (0, ZERO)), ""
        for life, named in verdict:
            async for page in lost_pages(self._database, OrgRecord(org_id), life, named, now_us, self._code):
                for one in page:
                    events, cents = sums[one.unclear]
                    sums[one.unclear] = events + 1, add(cents, one.cents)
        for why, (events, cents) in sorted(sums.items()):
            sentence += f"; {numbered(events, 'event')} of {plain(EXACT.divide(cents, Decimal(100)))} USD " + (
                f"may be on it or not ({why})" if why else "came after it had been counted"
            )
        return f"{sentence}: meterbridge lago rebill" if sentence else ""

    async def _last_fees(self, ended: Subscription, org_id: str) -> tuple[Invoice | None, list[Fee]]:
        """Return the deciding invoice of the latest period for which one has fees of the metric, and these fees."""
        found: list[tuple[Invoice, list[Fee]]] = []
        async for invoice in self._whole_invoices(org_id):
            fees = [fee for fee in self._fees_of_life(invoice, ended) if fee.from_date and fee.to_date]
            if fees and found and _last_day(fees) < _last_day(found[-1][1]):
                break
            if fees and found and _last_day(fees) > _last_day(found[-1][1]):
                found = []  # an invoice of an earlier period may be newer: a voided one was made again
            found += [(invoice, fees)] if fees else []
        last = deciding(invoice for invoice, _ in found)
        return next(((one, fees) for one, fees in found if one is last), (None, []))

    async def _whole_invoices(self, org_id: str) -> AsyncIterator[Invoice]:
        """Yield the latest subscription invoices of an org, each with its fees. Each is read from Lago once."""
        if org_id not in self._listed:
            self._listed[org_id] = await latest(self._lago, org_id)
        for listed in self._listed[org_id]:
            if listed.lago_id not in self._invoices:
                self._invoices[listed.lago_id] = await self._lago.invoice(listed.lago_id)
            if (invoice := self._invoices[listed.lago_id]) is not None:
                yield invoice

    def _fees_of_life(self, invoice: Invoice, life: Subscription) -> list[Fee]:
        """Return the fees of the metric for one life of the subscription's id. Another plan is another life."""
        of_life = (life.external_id, "charge", self._code)
        return [
            fee
            for fee in invoice.fees
            if (fee.external_subscription_id, fee.item.type, fee.item.code) == of_life
            and fee.lago_subscription_id in (None, life.lago_id)
        ]

    async def _delivered(
        self, subscription: str, from_us: int, until_us: int, org_id: str = ""
    ) -> tuple[Decimal, Decimal]:
        """Return the delivered cents, and the cents that Lago may count besides.

        Args:
            org_id: `""` = all orgs of the organisation, because Lago counts all events of a subscription's life.
        """
        moments = to_datetime(from_us), to_datetime(until_us)
        async with self._database.connection() as connection:
            sums = await connection.fetch(_SEALED, subscription, *moments, org_id, self._organization)
        delivered = total(cents for status, _, _, cents in sums if status == COMPLETED)
        return delivered, total(cents for *state, cents in sums if _may_count(*state))


def _may_count(status: str, reason: str, maybe_sent: bool | None) -> bool:
    """Return whether Lago may count an event that is not delivered: it is on its way, Lago has it and cannot bill it yet,
    for example because the metric is missing, or it is a dead letter that Lago may have. An event that was billed again
    must not be counted a second time.
    """
    if status == FAILED and reason.startswith(UNBILLABLE):
        return reason != UNBILLABLE_ENDED
    return status in (PENDING, PROCESSING) or (status == FAILED and lago_may_have(reason, maybe_sent))


def _last_day(fees: Sequence[Fee]) -> str:
    return max(str(fee.to_date) for fee in fees)


def _charged(invoice: Invoice, subscription: Subscription) -> tuple[int, int] | None:
    """Return the time whose usage the invoice charges on a subscription, `[from, until)`; None = it charges none."""
    for period in invoice.billing_periods:
        bounds = period.charges_from_datetime, period.charges_to_datetime
        if period.lago_subscription_id == subscription.lago_id and bounds[0] and bounds[1]:
            return parse_us(bounds[0]), parse_us(bounds[1]) + SECOND_US
    return None


def _why(subscription: str, org_id: str, own: Sequence[Subscription]) -> str:
    """Say why Lago shows no usage of a subscription that none of its billing periods in Lago has; `own`: Lago's
    subscriptions of the org with this id.
    """
    if not own:
        return f"Lago has no subscription {subscription} for {org_id}"
    runs = any(one.status == "active" for one in own)
    state = "runs in Lago, which shows no usage of it" if runs else "has not begun in Lago"
    return f"subscription {subscription} of {org_id} {state}"
