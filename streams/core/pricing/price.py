"""Computes the price of one call by one version of the rate card. Pure; every number is exact until the single rounding
at the end.

    LiteLLM's cost (plus markup), or tokens, seconds, images and requests  ->  x power level x team  ->  minimum  ->  rounded

The payer's factor is applied later, to the sum of a window (streams/core/pricing/payer.py).
"""

from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase

from schemas.money import EXACT, ZERO
from schemas.normalised_call import Usage
from schemas.rates import Entry, Factors, RateCard
from schemas.rounding import quantise

_HUNDRED, _ONE = Decimal(100), Decimal(1)
_AS_IT_IS = Entry()


def entry_of(card: RateCard, model: str, provider: str) -> Entry:
    """Return the entry that prices such calls: the first one that matches, otherwise the card's default, otherwise
    LiteLLM's unchanged cost.
    """
    for entry in card.entries:
        if fnmatchcase(model, entry.model) and fnmatchcase(provider, entry.provider):
            return entry
    return card.default or _AS_IT_IS


@dataclass(frozen=True, slots=True)
class Tariff:
    """An entry, prepared for many calls.

    Fields:
        prices: dollars per unit, in the order of `_counts`; None = the unit has no price.
        share: factor on LiteLLM's cost, for an entry without prices; 1.2 with a markup of 20 %.
    """

    has_units: bool
    prices: tuple[Decimal | None, ...]
    share: Decimal
    minimum: Decimal


def tariff_of(entry: Entry) -> Tariff:
    """Return the entry's tariff. Tokens without a price of their own get the price of the kind that includes them."""
    tokens = (
        entry.input,
        entry.input if entry.cached is None else entry.cached,
        entry.input if entry.cache_write is None else entry.cache_write,
        entry.output,
        entry.output if entry.reasoning is None else entry.reasoning,
    )
    each = (None if price is None else price.scaleb(-6) for price in tokens)
    prices = (*each, entry.per_second, entry.per_image, entry.per_request)
    percent = EXACT.add(_HUNDRED, entry.markup_percent or ZERO)
    return Tariff(entry.has_units, prices, percent.scaleb(-2), entry.minimum or ZERO)


def priced_by(tariff: Tariff, factors: Factors | None, call: Usage, unit: Decimal) -> Decimal:
    """Return the price of the call, dollars, before the payer's factor.

    If the call has none of the units that the tariff prices, it is billed at LiteLLM's cost. It must not become free
    because its sender counted no tokens.

    Args:
        unit: the price is rounded to a multiple of this amount, half to even, dollars.
    """
    usd = _by_units(tariff, call) if tariff.has_units else None
    if usd is None:
        usd = EXACT.multiply(call.cost, tariff.share)
    if factors is not None:
        usd = EXACT.multiply(usd, call_factor(factors, call))
    return quantise(max(usd, tariff.minimum), unit)


def bills_without_cost(tariff: Tariff, call: Usage, *, read_again: bool = False) -> bool:
    """Return whether the entry prices a counted unit of a call without a cost in LiteLLM.

    A markup or a minimum alone bills nothing, because a model without a price may be free.

    Args:
        read_again: whether the call is a job, or its answer can be read again. Then its request alone is not billed,
            because that would exclude the later report with the tokens.
    """
    counted = _counts(call)
    if read_again:
        counted = counted[:-1]
    return any(price and count for price, count in zip(tariff.prices, counted, strict=False))


def call_factor(factors: Factors, call: Usage) -> Decimal:
    """Return the factor for the call's power level and team; 1 for names that the card does not have."""
    level = factors.power_level.get(call.power_level, _ONE)
    team = factors.team.get(call.team_id)
    return level if team is None else EXACT.multiply(level, team)


def _by_units(tariff: Tariff, call: Usage) -> Decimal | None:
    """Return the dollars for the counted units; None if no counted unit has a price."""
    usd, found = ZERO, False
    for price, count in zip(tariff.prices, _counts(call), strict=True):
        if price is not None and count:
            usd = EXACT.fma(price, count, usd)
            found = True
    return usd if found else None


def _counts(call: Usage) -> tuple[Decimal | int, ...]:
    """Return the count of each unit. No token is counted twice, and the request is the last unit. LiteLLM's `tokens_input`
    includes cached and written tokens, and `tokens_output` includes reasoning.

    Contradicting counts are limited: there cannot be more cached tokens than input tokens.
    """
    cached = min(call.cached_tokens, call.tokens_input)
    written = min(call.cache_write_tokens, call.tokens_input - cached)
    reasoning = min(call.reasoning_tokens, call.tokens_output)
    tokens = (call.tokens_input - cached - written, cached, written, call.tokens_output - reasoning, reasoning)
    return (*tokens, call.seconds, call.images, 1)
