"""Computes the credits for one payment at the payment provider, independent of the order of the events about it.

An event never changes credits directly. It adds a fact to the payment: it is paid, the total of its refunds, the state
of a dispute. The credits depend only on the facts (`credits_due`), and only the difference to the credits that were
given is posted. So an event that arrives twice, late, or before an earlier one cannot change the result
(docs/adr/0033-what-a-payment-is-worth.md).
"""

from decimal import ROUND_DOWN, Context, Decimal
from typing import Final

import msgspec

from schemas.money import ZERO

#: Decimal places of credits for a part of a payment.
PLACES: Final = Decimal("1E-6")
_DOWN = Context(prec=60, rounding=ROUND_DOWN)

#: The states of a dispute, ordered from temporary to final. In an inquiry (`warning_...`) the bank has not taken the
#: money; in the second group it has; the last group is final. Source: https://docs.stripe.com/api/disputes/object
_RANKS: Final = {
    **dict.fromkeys(("warning_needs_response", "warning_under_review"), 0),
    **dict.fromkeys(("needs_response", "under_review"), 1),
    **dict.fromkeys(("warning_closed", "prevented", "won", "lost"), 2),
}
_UNKNOWN_RANK: Final = 1
_MONEY_STAYS: Final = frozenset(
    ("warning_needs_response", "warning_under_review", "warning_closed", "prevented", "won")
)


class Dispute(msgspec.Struct, frozen=True):
    """A dispute about a payment; `amount` is in the smallest unit of `currency`. With an unknown status the money
    counts as taken.
    """

    amount: int
    currency: str
    status: str


class Payment(msgspec.Struct, frozen=True):
    """The facts about one payment.

    Fields:
        paid: the whole amount in the smallest unit of `currency`; None = no payment is known yet.
        refunded: the total of all refunds, in the same unit.
        disputes: by the id of the dispute.
    """

    paid: int | None = None
    currency: str = ""
    refunded: int = 0
    disputes: dict[str, Dispute] = {}


class Offer(msgspec.Struct, frozen=True):
    """The offer for this payment: `credits` for `price`, in the smallest unit of `currency`."""

    credits: Decimal
    price: int
    currency: str


def merged_payment(one: Payment, other: Payment) -> Payment:
    """Combine the facts of both. The order does not matter, and a known fact changes nothing.

    The provider reports the sum of all refunds, which only grows, so the larger one is the later one. If two events
    contradict each other about the paid amount, the amount becomes 0, which fits no offer.
    """
    disputes = dict(one.disputes)
    for name, dispute in other.disputes.items():
        known = disputes.get(name)
        disputes[name] = dispute if known is None else _later(known, dispute)
    paid, currency = one.paid, one.currency
    if other.paid is not None:
        contradicts = paid is not None and (paid, currency) != (other.paid, other.currency)
        paid, currency = (0, "") if contradicts else (other.paid, other.currency)
    return Payment(paid, currency, max(one.refunded, other.refunded), disputes)


def fits(payment: Payment, offer: Offer) -> bool:
    """Return whether the paid amount and currency equal the offer. A payment that is not paid yet does not fit."""
    return (payment.paid, payment.currency.lower()) == (offer.price, offer.currency.lower())


def credits_due(payment: Payment, offer: Offer) -> Decimal:
    """Return the total credits of the payer for this payment, from 0 to `offer.credits`.

    A payment that does not fit the offer is worth 0. After a partial refund or dispute, the credits are proportional to
    the remaining money, rounded down to `PLACES`. Without a refund and without a lost or open dispute they equal the
    offer exactly. If no money remains, they are exactly 0.
    """
    if not fits(payment, offer):
        return ZERO
    gone = payment.refunded + sum(_taken(dispute, payment) for dispute in payment.disputes.values())
    left = max(0, offer.price - gone)
    if left == offer.price:
        return offer.credits
    share = _DOWN.divide(_DOWN.multiply(offer.credits, Decimal(left)), Decimal(offer.price))
    return share.quantize(PLACES, None, _DOWN)


def _later(one: Dispute, other: Dispute) -> Dispute:
    """Return the later of two states. If both have the same rank, return the one that takes more, so that the order
    does not matter.
    """

    def order(dispute: Dispute) -> tuple[int, bool, int, str, str]:
        rank = _RANKS.get(dispute.status, _UNKNOWN_RANK)
        return rank, dispute.status not in _MONEY_STAYS, dispute.amount, dispute.currency, dispute.status

    return max(one, other, key=order)


def _taken(dispute: Dispute, payment: Payment) -> int:
    """Return the amount that a dispute takes. An amount in another currency cannot be compared, so it takes the whole
    payment.
    """
    if dispute.status in _MONEY_STAYS:
        return 0
    return dispute.amount if dispute.currency.lower() == payment.currency.lower() else payment.paid or 0
