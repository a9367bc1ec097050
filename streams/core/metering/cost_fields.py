"""Reads a call's cost in dollars from any of the fields that senders use. Two different amounts are refused, and so is a
cost in another currency (ADR 0064).
"""

from collections.abc import Sequence
from decimal import Decimal
from operator import itemgetter

from schemas.errors import Rejected
from schemas.money import check_cost, from_cents, plain
from schemas.rounding import quantise, quantum
from schemas.wire import Call, CloudEventData, LagoProperties

#: Amounts that differ by less count as the same amount, because senders round, each in its way, and binary floats are
#: inexact.
_SAME = quantum()
#: Amounts are compared at this precision, because a sender may write any number of digits.
_FINE = quantum(24)
_CENTS, _DOLLARS = ("precise_total_amount_cents",), ("spend", "response_cost", "cost_usd", "cost")


def amount_of(call: Call) -> Decimal | None:
    """Return the cost in dollars, checked and not rounded; None if no field has one.

    Raises:
        Rejected: `contradicting_cost`, `foreign_currency`, or a reason of `check_cost`.
    """
    spend, response = call.spend, call.response_cost
    if (
        (spend is None or response is None)
        and call.cost_usd is None
        and call.cost is None
        and call.properties is None
        and call.cloud_event is None
        and call.precise_total_amount_cents is None
        and call.currency is None
    ):
        amount = response if spend is None else spend
        if amount is not None:
            check_cost(amount)
        return amount
    return _one_of(call)


def foreign_currency(call: Call) -> str:
    """Return the path of a currency that is not the US dollar; `""` = there is none. Without a currency it is assumed."""
    data = call.cloud_event.data if call.cloud_event is not None else None
    for path, of in (("", call), ("properties.", call.properties), ("data.", data)):
        if of is not None and of.currency is not None and of.currency.strip().upper() not in ("", "USD"):
            return f"{path}currency"
    return ""


def claims_of(call: Call) -> list[Decimal]:
    """Return the cost in each field that has one, dollars, unchecked; amounts in cents come first.

    Raises:
        decimal.Overflow: an amount in cents is too large for `schemas.money.from_cents`.
    """
    return [amount for _, amount in _named_claims(call)]


def _named_claims(call: Call) -> list[tuple[str, Decimal]]:
    """Return `claims_of`, each with the path of its field."""
    claims = _filled("", call, _DOLLARS)
    cents = _filled("", call, _CENTS)
    if call.properties is not None:
        claims += _filled("properties.", call.properties, ("cost_usd", "response_cost", "spend", "cost"))
    if call.cloud_event is not None and (data := call.cloud_event.data) is not None:
        claims += _filled("data.", data, ("cost", "spend", "response_cost", "cost_usd"))
        cents += _filled("data.", data, _CENTS)
    return [(path, from_cents(amount) if amount.is_finite() else amount) for path, amount in cents] + claims


def _filled(path: str, of: Call | LagoProperties | CloudEventData, names: Sequence[str]) -> list[tuple[str, Decimal]]:
    return [(path + name, amount) for name in names if (amount := getattr(of, name)) is not None]


def _one_of(call: Call) -> Decimal | None:
    claims = _named_claims(call)
    for _, amount in claims:
        check_cost(amount)
    if not claims:
        return None
    if path := foreign_currency(call):
        raise Rejected("foreign_currency", f"{path} is not USD: convert the cost to US dollars before you send it")
    fine = [(path, quantise(amount, _FINE)) for path, amount in claims]
    least, most = min(fine, key=itemgetter(1)), max(fine, key=itemgetter(1))
    if most[1] - least[1] >= _SAME:
        (one, one_usd), (other, other_usd) = sorted((least, most), key=fine.index)
        raise Rejected(
            "contradicting_cost",
            f"two fields hold different amounts: {one} is {_shown(one_usd)} USD and {other} is {_shown(other_usd)} USD",
        )
    return claims[0][1]


def _shown(amount: Decimal) -> str:
    """Return the amount with up to 12 decimals: two amounts may differ in the last one."""
    return plain(quantise(amount, _SAME))
