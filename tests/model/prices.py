"""The billed price of a call with a rate card: the rules of docs/rates.md with fractions, slow and without the product."""

from decimal import Decimal
from fractions import Fraction

from tests.model import history as h
from tests.model.rounding import EXACT, cost_of_call


def in_force(cards: list[h.Card], ended: int) -> h.Card | None:
    """The card that had started last when the call ended; of two with the same start the one stored later."""
    found: h.Card | None = None
    for card in cards:
        if card.begins <= ended and (found is None or card.begins >= found.begins):
            found = card
    return found


def prices_use(card: h.Card | None, call: h.Call) -> bool:
    """Whether the card bills the call although LiteLLM has no cost for it."""
    if card is None or not _matches(card, call):
        return False
    counted = any(Fraction(price or 0) and count for price, count in _kinds(card, call))
    return counted or bool(Fraction(card.request or 0))


def price(card: h.Card | None, call: h.Call, cost: Decimal, decimals: int) -> Decimal:
    """The price before the payer's factor; rounded once."""
    if card is None:
        return cost
    usd, least = Fraction(cost), Fraction(0)
    if _matches(card, call):
        least = Fraction(card.minimum)
        found = [(Fraction(each), count) for each, count in _kinds(card, call) if each is not None and count]
        if found or card.request is not None:
            usd = sum((each * count for each, count in found), Fraction(0)) / 1_000_000 + Fraction(card.request or 0)
        elif card.percent is not None:
            usd += usd * Fraction(card.percent) / 100
    if call.level == h.ECO:
        usd *= Fraction(card.eco)
    usd = max(usd, least)
    return cost_of_call(EXACT.divide(Decimal(usd.numerator), Decimal(usd.denominator)), decimals)


def factor(card: h.Card | None, org: str) -> Decimal:
    """The factor of the org that pays."""
    return Decimal(dict(card.orgs).get(org, "1")) if card else Decimal(1)


def _matches(card: h.Card, call: h.Call) -> bool:
    return card.model in ("", call.model)


def _kinds(card: h.Card, call: h.Call) -> list[tuple[str | None, int]]:
    """Each kind's price for a million with its tokens: cached and written ones are part of input, reasoning of output."""
    of_input, of_cached, of_written, of_output, of_reasoning = card.tokens
    whole, cached, written, output, reasoning = call.tokens
    return [
        (of_input, whole - cached - written),
        (of_cached or of_input, cached),
        (of_written or of_input, written),
        (of_output, output - reasoning),
        (of_reasoning or of_output, reasoning),
    ]
