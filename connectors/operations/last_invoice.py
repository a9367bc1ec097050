"""Finds the last invoice of a subscription that has ended in Lago, and how many events of one metric it counted.

Source: docs/lago-behaviour.md, 4.1 and 5.4.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from connectors.lago.responses import Fee, Invoice, Plan, StoredEvent, Subscription
from connectors.lago.transport import read
from schemas.customers import Period
from schemas.moments import HOUR_US, SECOND_US, parse_us, to_datetime

#: Why it is unknown whether the last invoice counted an event: the invoice does not show it, or there is no invoice.
MAYBE_INVOICED, NO_LAST_INVOICE = "maybe_invoiced", "no_last_invoice"
#: Lago's list of events changed while it was read, or lacks an event. The list is read again without an operator.
STILL_ARRIVING: Final = "still_arriving"
#: Lago makes the last invoice soon after the end. During this time a missing invoice is not reported, microseconds.
INVOICED_US: Final = HOUR_US
#: How many of a customer's latest invoices are listed, and how many of the subscription invoices among them are read.
LISTED: Final = 1000
INVOICES: Final = 24
#: Lago lists invoices by the day of issue. This day may be before the end, because of the time zone or because it is
#: the last day of the period.
_ISSUED_US: Final = 48 * HOUR_US
#: The largest difference between the clocks of two Lago processes: one stores the end, another makes its invoice.
_CLOCKS_US: Final = 600 * SECOND_US
#: Invoices in these states will still count events.
_TO_BE_COUNTED: Final = ("draft", "pending")


class Invoices(Protocol):
    """The requests to Lago that this module needs, see `LagoClient`."""

    async def invoices(
        self, external_customer_id: str = "", *, most: int | None = None, issued_from: str = ""
    ) -> list[Invoice]: ...
    async def invoice(self, lago_id: str) -> Invoice | None: ...
    async def plan(self, code: str) -> Plan | None: ...
    async def read_events_of(
        self,
        external_subscription_id: str,
        code: str,
        from_us: int,
        until_us: int,
        most: int,
        take: Callable[[StoredEvent], None],
    ) -> str: ...


class ReadOnce:
    """Implements `Invoices` for one examination of an org: each invoice, list and plan is requested once. Events are
    not cached.
    """

    def __init__(self, lago: Invoices) -> None:
        self._lago = lago
        self._lists: dict[tuple[str, int | None, str], list[Invoice]] = {}
        self._invoices: dict[str, Invoice | None] = {}
        self._plans: dict[str, Plan | None] = {}
        self.read_events_of = lago.read_events_of

    async def invoices(
        self, external_customer_id: str = "", *, most: int | None = None, issued_from: str = ""
    ) -> list[Invoice]:
        """See `LagoClient.invoices`."""
        key = external_customer_id, most, issued_from
        if key not in self._lists:
            self._lists[key] = await self._lago.invoices(external_customer_id, most=most, issued_from=issued_from)
        return self._lists[key]

    async def invoice(self, lago_id: str) -> Invoice | None:
        """See `LagoClient.invoice`."""
        if lago_id not in self._invoices:
            self._invoices[lago_id] = await self._lago.invoice(lago_id)
        return self._invoices[lago_id]

    async def plan(self, code: str) -> Plan | None:
        """See `LagoClient.plan`."""
        if code not in self._plans:
            self._plans[code] = await self._lago.plan(code)
        return self._plans[code]


class Life(NamedTuple):
    """A life of a subscription's external id that has ended in Lago. Times are microseconds since 1970 UTC.

    Fields:
        ended_us: the end that Lago reports, with the precision of a second.
        until_us: events before this moment may belong to the life: one second after the end, or the start of the id's
            next life if that is earlier.
    """

    subscription: str
    lago_id: str
    plan_code: str
    started_us: int
    ended_us: int
    until_us: int


class Counted(NamedTuple):
    """The events of a metric that the last invoice counted: those with a timestamp at or after `from_us`.

    Fields:
        unclear: why the invoice does not show it; `""` = it does.
        waits: whether there is no final invoice yet.
    """

    from_us: int = 0
    events: int = 0
    cents: int = 0
    unclear: str = ""
    waits: bool = False


def lives_of(listed: Iterable[Subscription], periods: Sequence[Period], since_us: int) -> list[Life]:
    """Select the lives of an org's subscriptions that ended at or after `since_us`.

    Args:
        listed: the org's subscriptions.
        periods: all known lives of the same ids, also those of other customers.

    Raises:
        LagoUnavailable: `bad_answer`.
    """
    lives = []
    for one in listed:
        if one.started_at is None or one.terminated_at is None or one.lago_id is None:
            continue
        started_us, ended_us = read(parse_us, one.started_at), read(parse_us, one.terminated_at)
        later = [
            other.started_at
            for other in periods
            if other.external_id == one.external_id and other.started_at > started_us and other.started_at >= ended_us
        ]
        until_us = min([ended_us + SECOND_US, *later])
        if ended_us >= since_us:
            lives.append(Life(one.external_id, one.lago_id, one.plan_code or "", started_us, ended_us, until_us))
    return sorted(lives)


async def last_counted(lago: Invoices, org_id: str, life: Life, code: str, now_us: int) -> Counted:
    """Read from the last invoice of `life` how many events of the metric `code` its only fee counts.

    Raises:
        LagoIntegrationError
    """
    invoices = await _of_the_end(lago, org_id, life)
    statuses = {invoice.status for invoice, _ in invoices}
    if "voided" in statuses or len(invoices) > 1:
        return Counted(unclear=MAYBE_INVOICED)
    if statuses & set(_TO_BE_COUNTED):
        return Counted(waits=True)
    if statuses != {"finalized"}:
        due = now_us >= life.ended_us + INVOICED_US
        return Counted(unclear=NO_LAST_INVOICE) if due else Counted(waits=True)
    [(invoice, from_us)] = invoices
    fees = [fee for fee in invoice.fees if _is_of(fee, life, code)]
    if len(fees) > 1 or not all(map(_is_a_sum, fees)) or not await _charges_sums(lago, life.plan_code, code):
        return Counted(unclear=MAYBE_INVOICED)
    # Lago stores no fee without events.
    events, cents = next(((fee.events_count or 0, fee.amount_cents) for fee in fees), (0, 0))
    return Counted(max(from_us, life.started_us), events, cents)


async def _of_the_end(lago: Invoices, org_id: str, life: Life) -> list[tuple[Invoice, int]]:
    """Find the invoices whose charges reach to the end, each with the start of its charges. Several = Lago made the
    invoice again.
    """
    invoices = []
    issued_from = to_datetime(life.ended_us - _ISSUED_US).date().isoformat()
    for listed in await lago.invoices(org_id, issued_from=issued_from):
        made_us = life.ended_us if listed.created_at is None else read(parse_us, listed.created_at)
        if listed.invoice_type != "subscription" or made_us < life.ended_us - _CLOCKS_US:
            continue
        invoice = await lago.invoice(listed.lago_id)
        for period in () if invoice is None else invoice.billing_periods:
            if period.lago_subscription_id != life.lago_id or not (
                period.charges_from_datetime and period.charges_to_datetime
            ):
                continue
            # If a change of plan ends a life at the end of a period, Lago shows the end one second after the period's
            # last second.
            if abs(read(parse_us, period.charges_to_datetime) - life.ended_us) <= SECOND_US and invoice is not None:
                invoices.append((invoice, read(parse_us, period.charges_from_datetime)))
    return invoices


async def latest(lago: Invoices, org_id: str) -> list[Invoice]:
    """Return the latest subscription invoices of an org, without fees. Raises: LagoIntegrationError."""
    listed = await lago.invoices(org_id, most=LISTED)
    return [one for one in listed if one.invoice_type == "subscription"][:INVOICES]


async def uninvoiced_since(lago: Invoices, org_id: str, life: Life) -> int | None:
    """Find the moment from which on a life without a last invoice is not invoiced, microseconds since 1970 UTC.

    It is the end of the charges of its latest invoice, or its start if there is no invoice. An invoice that is not
    final yet will still count its period.

    Returns:
        None if the latest invoice may be missing in the list of the org's `LISTED` invoices.

    Raises:
        LagoIntegrationError
    """
    invoices = await lago.invoices(org_id, most=LISTED)
    for listed in invoices:
        if listed.created_at is not None and read(parse_us, listed.created_at) < life.started_us - _CLOCKS_US:
            continue  # the list is ordered by the day of issue, so later entries may still belong to this life
        if listed.invoice_type != "subscription" or listed.status == "voided":
            continue
        invoice = await lago.invoice(listed.lago_id)
        for period in () if invoice is None else invoice.billing_periods:
            if period.lago_subscription_id == life.lago_id and period.charges_to_datetime:
                return max(life.started_us, read(parse_us, period.charges_to_datetime) + SECOND_US)
    return life.started_us if len(invoices) < LISTED else None


def _is_of(fee: Fee, life: Life, code: str) -> bool:
    return fee.lago_subscription_id == life.lago_id and (fee.item.type, fee.item.code) == ("charge", code)


def _is_a_sum(fee: Fee) -> bool:
    """Return whether the fee is the sum of all events, rounded once, and not of a group, of a filter, or of one event."""
    return not (fee.item.grouped_by or fee.lago_charge_filter_id or fee.pay_in_advance or fee.events_count is None)


async def _charges_sums(lago: Invoices, plan_code: str, code: str) -> bool:
    """Return whether the plan charges the sum of the events' amounts on the invoice of the period."""
    plan = await lago.plan(plan_code) if plan_code else None
    charges = [] if plan is None else [charge for charge in plan.charges if charge.billable_metric_code == code]
    return [(charge.charge_model, charge.pay_in_advance) for charge in charges] == [("dynamic", False)]
