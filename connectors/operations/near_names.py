"""Finds what was probably meant by a name that is not known."""

from collections.abc import Collection, Iterable
from typing import Final

from connectors.config.misspelt_names import GUESS, meant_by
from connectors.telemetry.printable import shown

#: How similar (0 to 1) a name must be to be suggested: names of customers and orgs are often alike without a mistake.
ID_ALIKE: Final = 0.8
#: Exports of other systems have columns of their own, so only a slip of the pen is taken for a misspelt column.
_SLIP: Final = 0.9


def did_you_mean(name: str, known: Iterable[str], alike: float = GUESS) -> str:
    """Return a question with the known name that is most similar, as `did you mean acme-inc?`; `""` = none is similar.

    Control characters in it are escaped: names come from outside.
    """
    near = meant_by(name, known, alike)
    return f"did you mean {shown(near)}?" if near else ""


def misspelt_column(given: Collection[str], known: Collection[str]) -> str:
    """Return a sentence about the first unknown name that is like a known one which is not given; `""` = there is none.
    Other unknown columns are ignored, but this one would be missed.
    """
    missing = {name.lower(): name for name in sorted(known) if name not in given}
    for name in given:
        if name not in known and (near := meant_by(name.lower(), missing, _SLIP)):
            return f"the column {shown(name)} is unknown: did you mean {missing[near]}? Rename it, or remove it"
    return ""
