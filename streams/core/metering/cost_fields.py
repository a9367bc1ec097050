"""Reads a call's cost in dollars from any of the fields that senders use. Two different amounts are refused."""

from decimal import Decimal

from schemas.errors import Rejected
from schemas.money import check_cost, from_cents, quantise, quantum
from schemas.wire import Call

#: Amounts that differ by less count as the same amount, because senders round, each in its way, and binary floats are
#: inexact.
_SAME = quantum()
#: Amounts are compared at this precision, because a sender may write any number of digits.
_FINE = quantum(24)


def amount_of(call: Call) -> Decimal | None:
    """Return the cost in dollars, checked and not rounded; None if no field has one.

    Raises:
        Rejected: `contradicting_cost`, or a reason of `check_cost`.
    """
    spend, response = call.spend, call.response_cost
    if (
        (spend is None or response is None)
        and call.cost_usd is None
        and call.cost is None
        and call.properties is None
        and call.cloud_event is None
        and call.precise_total_amount_cents is None
    ):
        amount = response if spend is None else spend
        if amount is not None:
            check_cost(amount)
        return amount
    return _one_of(call)


def claims_of(call: Call) -> list[Decimal]:
    """Return the cost in each field that has one, dollars, unchecked; amounts in cents come first.

    Raises:
        decimal.Overflow: an amount in cents is too large for `schemas.money.from_cents`.
    """
    claims = [call.spend, call.response_cost, call.cost_usd, call.cost]
    cents = [call.precise_total_amount_cents]
    if (properties := call.properties) is not None:
        claims += [properties.cost_usd, properties.response_cost, properties.spend, properties.cost]
    if call.cloud_event is not None and (data := call.cloud_event.data) is not None:
        claims += [data.cost, data.spend, data.response_cost, data.cost_usd]
        cents += [data.precise_total_amount_cents]
    amounts = [amount for amount in claims if amount is not None]
    return [from_cents(amount) if amount.is_finite() else amount for amount in cents if amount is not None] + amounts


def _one_of(call: Call) -> Decimal | None:
    amounts = claims_of(call)
    for amount in amounts:
        check_cost(amount)
    compared = [quantise(amount, _FINE) for amount in amounts]
    if compared and max(compared) - min(compared) >= _SAME:
        raise Rejected("contradicting_cost", "two fields hold different amounts")
    return amounts[0] if amounts else None
