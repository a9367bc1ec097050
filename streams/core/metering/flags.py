"""Reads yes or no in the spellings of several senders: LiteLLM's table has texts, exports have `t` and `1`."""

from typing import Final

YES: Final = frozenset({"true", "1", "1.0", "yes", "y", "t", "on"})
NO: Final = frozenset({"false", "0", "0.0", "no", "n", "f", "off", "", "none", "null"})
_LONGEST = 16
#: The spellings of LiteLLM's table.
_USUAL: Final = {"True": True, "False": False, "None": False, "": False}


def is_yes(value: bool | int | str | None) -> bool:
    """Return whether the value means yes. Any value that means neither yes nor no counts as no."""
    if value is True or value is False:
        return value
    if type(value) is str:
        if (usual := _USUAL.get(value)) is not None:
            return usual
        return len(value) <= _LONGEST and value.strip().lower() in YES
    return value == 1
