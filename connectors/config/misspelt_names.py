"""Finds what was probably meant by a misspelt name, and environment variables that look like a misspelt setting, which
would silently keep its default.
"""

from collections.abc import Collection, Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import Final

#: Prefixes that no other program uses in our environment, except Lago itself.
_OURS: Final = ("KAFKA_", "LAGO_")
#: How similar (0 to 1) a name must be to a setting to be reported, and to be suggested.
_ALIKE, GUESS = 0.86, 0.6


def unknown_names(names: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """Return the names that look like settings but are not, sorted."""
    return tuple(
        sorted(name for name in names if name not in known and (name.startswith(_OURS) or _near_miss(name, known)))
    )


def meant_by(name: str, known: Iterable[str], alike: float = GUESS) -> str:
    """Return the known name that was probably meant; `""` if none is as similar as `alike`, 0 to 1."""
    return next(iter(get_close_matches(name, known, 1, alike)), "")


def _near_miss(name: str, known: Collection[str]) -> bool:
    """Return whether a long name differs from a setting by one or two letters; short names such as `HOST` have too many
    neighbours.
    """
    if "_" not in name or len(name) < len("LOG_LEVEL"):
        return False
    return any(
        abs(len(name) - len(setting)) <= 2
        and name[:2] == setting[:2]
        and SequenceMatcher(None, name, setting).ratio() >= _ALIKE
        for setting in known
    )
