"""Finds a misspelt field that was probably meant to name the customer. Unknown fields are ignored, so without it the usage
of such a call is held as `unattributed`, and its sender hears of nothing.
"""

from collections.abc import Collection
from typing import Final

from connectors.config.misspelt_names import meant_by
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
        if len(name) <= _LONGEST and name not in _KNOWN and (near := meant_by(name.lower(), _NAMES, _LIKENESS)):
            return f"`{name}` is unknown and was ignored, and no other field names the customer: did you mean `{near}`?"
    return ""
