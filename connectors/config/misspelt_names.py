"""Names of variables that look like ours and are none: most often a letter too many, and the setting stays as it was."""

from collections.abc import Collection, Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import Final

#: Nobody but us has names that begin so in our processes' environment; Lago's own are worth a word too.
_OURS: Final = ("KAFKA_", "LAGO_")
#: How alike a name must be that does not begin so; and one that does, for a guess at what was meant.
_ALIKE, _GUESS = 0.86, 0.6


def unknown_names(names: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    """Those that look like ours and are none, in order."""
    return tuple(
        sorted(name for name in names if name not in known and (name.startswith(_OURS) or _near_miss(name, known)))
    )


def meant_by(name: str, known: Collection[str]) -> str:
    """The setting that was probably meant; `""` where none is like it."""
    return next(iter(get_close_matches(name, known, 1, _GUESS)), "")


def _near_miss(name: str, known: Collection[str]) -> bool:
    """A long name that differs by a letter or two; short ones such as `HOST` have too many neighbours."""
    if "_" not in name or len(name) < len("LOG_LEVEL"):
        return False
    return any(
        abs(len(name) - len(one)) <= 2 and name[:2] == one[:2] and SequenceMatcher(None, name, one).ratio() >= _ALIKE
        for one in known
    )
