"""Finds a misspelt field that was probably meant to name the customer. Unknown fields are ignored, so without it the usage
of such a call is held as `unattributed`, and its sender hears of nothing.
"""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

from schemas.wire import Call

#: The fields in which a sender of its own names the customer.
_NAMES: Final = ("customer_id", "end_user", "external_customer_id")
_LIKENESS: Final = 0.8
#: Longer names are not compared, and are not repeated in the answer.
_LONGEST: Final = 30
_KNOWN: Final = frozenset(Call.__struct_fields__)


def misspelt_customer(names: Collection[str] | None) -> str:
    """Return a sentence for the answer; `""` if none of the names of an element's members is similar."""
    for name in names or ():
        if len(name) <= _LONGEST and name not in _KNOWN and (near := _near(name)):
            return f"`{name}` is unknown and was ignored, and no other field names the customer: did you mean `{near}`?"
    return ""


def _near(name: str) -> str:
    return next(iter(get_close_matches(name.lower(), _NAMES, 1, _LIKENESS)), "")
