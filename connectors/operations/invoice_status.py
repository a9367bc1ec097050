"""Decides from the status of an invoice whether its amount can be compared with what was delivered.

Source of the statuses: docs/lago-behaviour.md, 5.4.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from connectors.lago.responses import Invoice
from schemas.moments import HOUR_US, to_iso
from schemas.money import plain
from streams.core.metering.reconciliation import HALF_A_CENT

#: How long an invoice may be a draft or pending until a person should know it, microseconds.
_LATE_US: Final = 72 * HOUR_US
_FINAL, _FAILED, _OPEN, _VOIDED = "finalized", "failed", ("draft", "pending"), "voided"


@dataclass(slots=True)
class SubscriptionComparison:
    """The result for one subscription.

    Fields:
        complaint: a sentence if Lago's amount differs, or is not billed.
        note: a sentence for a person who should look into Lago, if an amount was not compared.
        complete: whether every amount that is due was compared.
    """

    complaint: str = ""
    note: str = ""
    complete: bool = True


def together(*compared: SubscriptionComparison) -> SubscriptionComparison:
    """Return one result for all amounts of a subscription."""
    return SubscriptionComparison(
        "; ".join(filter(None, (one.complaint for one in compared))),
        "; ".join(filter(None, (one.note for one in compared))),
        all(one.complete for one in compared),
    )


def deciding(invoices: Iterable[Invoice]) -> Invoice | None:
    """Return the invoice of one period that decides: a finalized one, else a failed one, one that Lago still counts, or
    a voided one. A voided invoice may have a successor. None = there is no invoice.
    """
    rank = (_FINAL, _FAILED, *_OPEN)
    return min(invoices, key=lambda one: rank.index(one.status) if one.status in rank else len(rank), default=None)


def is_final(invoice: Invoice) -> bool:
    """Return whether Lago has counted the invoice, and its customer pays it."""
    return invoice.status == _FINAL


def not_final(
    subscription: str, invoice: Invoice, from_us: int, until_us: int, delivered: Decimal, now_us: int
) -> SubscriptionComparison:
    """Return the result for a period whose deciding invoice is not finalized.

    Args:
        from_us, until_us: the period, microseconds since 1970 UTC.
        delivered: cents that were delivered for it.
    """
    between = f"subscription {subscription}: its invoice from {to_iso(from_us)} to {to_iso(until_us)}"
    cents = f"{plain(delivered)} cents were delivered"
    if invoice.status == _FAILED:
        if delivered < HALF_A_CENT:
            return SubscriptionComparison()
        return SubscriptionComparison(complaint=f"{between} has failed in Lago, {cents}: retry the invoice in Lago")
    if invoice.status == _VOIDED:
        return SubscriptionComparison(
            note=f"{between} is voided, and no finalized one follows it, so it was not compared: {cents}",
            complete=False,
        )
    if invoice.status in _OPEN and now_us < until_us + _LATE_US:
        return SubscriptionComparison(complete=False)
    return SubscriptionComparison(
        note=f"{between} is still {invoice.status or 'without a status'}, so it was not compared: {cents}",
        complete=False,
    )
