"""Selects the calls that an asked amount may be about: "why was I billed 0.012 USD?"."""

from decimal import Decimal

from connectors.operations.call_stories import CallRow, EventStory
from schemas.money import EXACT, ZERO

_HUNDRED = Decimal(100)


def in_question(
    candidates: list[tuple[CallRow, EventStory | None]], usd: Decimal
) -> list[tuple[CallRow, EventStory | None]]:
    """Select the calls with this cost or billed amount. If there are none, select the calls in events with this amount.
    If there are none either, the list is empty.

    A rounded amount matches each cost that rounds to it.
    """
    calls = [one for one in candidates if any(_rounds_to(amount, usd) for amount in _amounts(one[0]))]
    if calls:
        return calls
    return [
        candidate
        for candidate in candidates
        if candidate[1] is not None and _rounds_to(EXACT.divide(candidate[1].cents, _HUNDRED), usd)
    ]


def _amounts(call: CallRow) -> tuple[Decimal, ...]:
    return (call.usd,) if call.billed is None else (call.usd, call.billed)


def _rounds_to(exact: Decimal, claimed: Decimal) -> bool:
    return abs(exact - claimed) * 2 <= (unit_of(claimed) if exact != claimed else ZERO)


def unit_of(claimed: Decimal) -> Decimal:
    """Return the last decimal place in which the amount is written."""
    exponent = claimed.as_tuple().exponent
    return Decimal(1).scaleb(exponent) if isinstance(exponent, int) else Decimal(1)
