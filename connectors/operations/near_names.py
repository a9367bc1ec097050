"""Finds what was probably meant by a name that is not known."""

from collections.abc import Iterable
from typing import Final

from connectors.config.misspelt_names import GUESS, meant_by
from connectors.telemetry.printable import shown

#: How similar (0 to 1) a name must be to be suggested: names of customers and orgs are often alike without a mistake.
ID_ALIKE: Final = 0.8


def did_you_mean(name: str, known: Iterable[str], alike: float = GUESS) -> str:
    """Return a question with the known name that is most similar, as `did you mean acme-inc?`; `""` = none is similar.

    Control characters in it are escaped: names come from outside.
    """
    near = meant_by(name, known, alike)
    return f"did you mean {shown(near)}?" if near else ""
