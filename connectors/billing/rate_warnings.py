"""Finds parts of a rate card that are valid and that are probably no intention: usage that becomes free without a word,
amounts in another unit, and prices and factors that no call can have.
"""

from collections.abc import Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from connectors.billing.rate_files import POWER_LEVELS
from connectors.config.misspelt_names import meant_by
from schemas.money import plain
from schemas.rates import TOKEN_PRICES, Entry, Factors, RateCard

#: A million tokens of the cheapest models cost more, a single token of the dearest ones less.
_PER_TOKEN: Final = Decimal("0.001")
#: A larger factor, or a smaller percentage, was probably written as the other.
_AS_PERCENT, _AS_SHARE = Decimal(10), Decimal(1)
_ALIKE: Final = 0.8


def warnings_of(card: RateCard) -> list[str]:
    """Return a sentence for each such part, in the order of the card. An explicit price of 0 means free, and is not named."""
    entries = [(f"price {number}", entry) for number, entry in enumerate(card.entries, 1)]
    warnings, covered = [], _covered(card.entries)
    for place, (where, entry) in enumerate(entries):
        warnings += _of_entry(where, entry)
        if (first := covered.get(place)) is not None:
            earlier = entries[first][0]
            warnings.append(f"{where} prices no call: {earlier} matches each of its calls before it. Put {where} first")
    return [
        *warnings,
        *(_of_entry("default", card.default) if card.default else []),
        *_of_factors(card.factors or Factors()),
    ]


def _of_entry(where: str, entry: Entry) -> list[str]:
    prices = [(name, getattr(entry, name)) for name in TOKEN_PRICES]
    warnings = _free(where, entry) + [
        f"{where}.{name} is {plain(price)} USD for a million tokens. Is it the price of one token, or of a thousand?"
        for name, price in prices
        if price and price < _PER_TOKEN
    ]
    share = entry.markup_percent
    if share and abs(share) < _AS_SHARE:
        warnings.append(f'{where}.markup_percent is {plain(share)} %. For 20 % write "20", not "0.2"')
    return warnings


def _of_factors(factors: Factors) -> list[str]:
    warnings = []
    for kind, named in msgspec.structs.asdict(factors).items():
        for name, factor in named.items():
            if factor >= _AS_PERCENT:
                warnings.append(f'factors.{kind}.{name} multiplies by {plain(factor)}. For 85 % write "0.85", not "85"')
    for name in factors.power_level:
        if name != name.strip().lower():
            warnings.append(f"factors.power_level.{name} is for no call: levels are in lower case")
        elif name not in POWER_LEVELS and (near := meant_by(name, POWER_LEVELS, _ALIKE)):
            warnings.append(f"factors.power_level.{name} is not the level {near}: correct the name if that is meant")
    return warnings


def _free(where: str, entry: Entry) -> list[str]:
    """Name the tokens that cost nothing although the entry prices others. Cached and written tokens cost as input without
    a price of their own, and reasoning as output.
    """
    if all(getattr(entry, name) is None for name in TOKEN_PRICES):
        return []
    return [
        f'{where} has no {name} price, so {name} tokens cost nothing. If that is meant, write {name} = "0"'
        for name in ("input", "output")
        if getattr(entry, name) is None
    ]


def _covered(entries: Sequence[Entry]) -> dict[int, int]:
    """Return the places of the entries whose calls an earlier entry matches, and the place of the first such entry."""
    found: dict[int, int] = {}
    for first, earlier in enumerate(entries):  # the outer loop, because few compiled patterns are cached
        for place, entry in enumerate(entries[first + 1 :], first + 1):
            if _covers(earlier.model, entry.model) and _covers(earlier.provider, entry.provider):
                found.setdefault(place, first)
    return found


def _covers(earlier: str, pattern: str) -> bool:
    """Return whether `earlier` matches all that `pattern` matches. One with `?` or `[` is compared only with itself."""
    return earlier == pattern or ("*" in earlier and not {"?", "["} & {*earlier} and fnmatchcase(pattern, earlier))
