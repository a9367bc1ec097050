"""Finds what was probably meant by a name that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from connectors.telemetry.printable import shown

#: How similar (0 to 1) a name must be to be suggested.
_ALIKE: Final = 0.6
#: Names of customers and orgs are often alike without a mistake.
ID_ALIKE: Final = 0.8


def did_you_mean(name: str, known: Iterable[str], alike: float = _ALIKE) -> str:
    """Return a question with the known name that is most similar, as `did you mean acme-inc?`; `""` = none is similar.

    Control characters in it are escaped: names come from outside.
    """
    near = get_close_matches(name, sorted(set(known) - {""}), 1, alike)
    return f"did you mean {shown(near[0])}?" if near else ""
