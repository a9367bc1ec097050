"""Finds parts of a rate card that are valid and that are probably no intention: usage that becomes free without a word, and
prices that no call can have.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from schemas.rates import TOKEN_PRICES, Entry, RateCard


def warnings_of(card: RateCard) -> list[str]:
    """Return a sentence for each such part, in the order of the card. An explicit price of 0 means free, and is not named."""
    entries = [(f"price {number}", entry) for number, entry in enumerate(card.entries, 1)]
    warnings, covered = [], _covered(card.entries)
    for place, (where, entry) in enumerate(entries):
        warnings += _free(where, entry)
        if (first := covered.get(place)) is not None:
            earlier = entries[first][0]
            warnings.append(f"{where} prices no call: {earlier} matches each of its calls before it. Put {where} first")
    return [*warnings, *(_free("default", card.default) if card.default else [])]


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
