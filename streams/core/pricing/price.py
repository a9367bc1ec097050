"""The price of one call under one version of the rate card. Pure; every number is exact until the one rounding at the end.

    LiteLLM's cost (plus markup), or tokens, seconds, images and requests  ->  x power level x team  ->  minimum  ->  rounded

The payer's factor comes after that, on the sum of a window (streams/core/pricing/payer.py).
"""

from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Protocol

from schemas.money import EXACT, ZERO, add, quantise, quantum
from schemas.rates import Entry, Factors, RateCard

_HUNDRED = Decimal(100)
_UNIT = quantum()
_AS_IT_IS = Entry()
_NO_FACTORS = Factors()


class Call(Protocol):
    """What a price depends on; `schemas.usage.Usage` explains the fields.

    LiteLLM's `tokens_input` includes cached and written tokens, and `tokens_output` includes reasoning.
    """

    @property
    def model(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def cost(self) -> Decimal: ...
    @property
    def tokens_input(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def cache_write_tokens(self) -> int: ...
    @property
    def tokens_output(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int: ...
    @property
    def images(self) -> int: ...
    @property
    def seconds(self) -> Decimal: ...
    @property
    def power_level(self) -> str: ...
    @property
    def team_id(self) -> str: ...


def entry_of(card: RateCard, model: str, provider: str) -> Entry:
    """The entry that prices such calls: the first that matches, else the card's default, else LiteLLM's cost as it is."""
    for entry in card.entries:
        if fnmatchcase(model, entry.model) and fnmatchcase(provider, entry.provider):
            return entry
    return card.default or _AS_IT_IS


def price_of(card: RateCard, call: Call, unit: Decimal = _UNIT) -> Decimal:
    """What the call is billed at, dollars, before the payer's factor.

    A call of which an entry's prices find nothing to count is billed at LiteLLM's cost: it must not become free because
    its sender counted no tokens.

    Args:
        unit: the price is rounded to a multiple of it, half to even.
    """
    return priced_by(entry_of(card, call.model, call.provider), card.factors, call, unit)


def priced_by(entry: Entry, factors: Factors | None, call: Call, unit: Decimal) -> Decimal:
    """`price_of` for an entry that is known."""
    if entry.has_units and counts(entry, call):
        usd = _by_units(entry, call)
    elif entry.markup_percent is not None:
        usd = EXACT.multiply(call.cost, EXACT.add(_HUNDRED, entry.markup_percent).scaleb(-2))
    else:
        usd = call.cost
    if factors is not None:
        usd = EXACT.multiply(usd, call_factor(factors, call))
    if entry.minimum is not None:
        usd = max(usd, entry.minimum)
    return quantise(usd, unit)


def bills_without_cost(entry: Entry, call: Call, *, read_again: bool = False) -> bool:
    """Whether the entry prices something that was counted of a call without a cost of LiteLLM's.

    A markup or a minimum alone bills nothing: a model without a price may be free.

    Args:
        read_again: the call is a job, or its answer can be read again. Its request alone is then not billed, because
            that would shut out the later report that has the tokens.
    """
    return any(price and count for price, count in _units(entry, call, requests=0 if read_again else 1))


def counts(entry: Entry, call: Call) -> bool:
    """Whether something that the entry has a price for was counted of the call."""
    return any(count for _, count in _units(entry, call))


def call_factor(factors: Factors, call: Call) -> Decimal:
    """By the call's power level and team; 1 for names that the card does not have."""
    level = factors.power_level.get(call.power_level)
    team = factors.team.get(call.team_id)
    if level is None:
        return Decimal(1) if team is None else team
    return level if team is None else EXACT.multiply(level, team)


def _by_units(entry: Entry, call: Call) -> Decimal:
    usd = ZERO
    for price, count in _units(entry, call):
        usd = add(usd, EXACT.multiply(price, count))
    return usd


def _units(entry: Entry, call: Call, requests: int = 1) -> list[tuple[Decimal, Decimal | int]]:
    """Each price in dollars for one, with the number that it is for. No token has two prices.

    Counts that contradict each other are cut: there are no more cached tokens than input.
    """
    cached = min(call.cached_tokens, call.tokens_input)
    written = min(call.cache_write_tokens, call.tokens_input - cached)
    reasoning = min(call.reasoning_tokens, call.tokens_output)
    tokens = (
        (entry.input, call.tokens_input - cached - written),
        (entry.input if entry.cached is None else entry.cached, cached),
        (entry.input if entry.cache_write is None else entry.cache_write, written),
        (entry.output, call.tokens_output - reasoning),
        (entry.output if entry.reasoning is None else entry.reasoning, reasoning),
    )
    found: list[tuple[Decimal, Decimal | int]] = [
        (price.scaleb(-6), count) for price, count in tokens if price is not None and count
    ]
    things = ((entry.per_second, call.seconds), (entry.per_image, call.images), (entry.per_request, requests))
    return found + [(price, count) for price, count in things if price is not None and count]
