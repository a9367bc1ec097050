"""What is wrong with the value of a setting, in words that say what is expected. The value itself is never repeated."""

import re
from collections.abc import Mapping
from typing import Final

#: By the type of pydantic's error (https://docs.pydantic.dev/latest/errors/validation_errors/).
_EXPECTED: Final[Mapping[str, str]] = {
    "int_parsing": "must be a whole number, for example {}",
    "int_from_float": "must be a whole number, for example {}",
    "float_parsing": "must be a number, for example {}",
    "decimal_parsing": "must be a number, for example {}",
    "bool_parsing": "must be 1 or 0",
    "byte_size": "must be a number of bytes, for example 67108864 or 64MiB",
    "path_not_file": "must be the path of a file that exists and can be read",
    "byte_size_unit": "must be a number of bytes, for example 67108864 or 64MiB",
}

#: How pydantic names the value: `Input should`, `String should`.
_SUBJECT: Final = re.compile(r"^(\w+ )?should ")


def complaint(kind: str, message: str, default: object = None) -> str:
    """The end of a sentence that begins with the name of the setting.

    Args:
        kind: `type` of pydantic's error.
        message: its `msg`, which does not contain the value.
        default: the setting's default, which is a better example than any number; None = there is none.
    """
    if kind == "string_pattern_mismatch":
        dots = " dots," if "._" in message else ""
        return f"must be made of letters, digits,{dots} underscores and hyphens, and a name begins with a letter or a digit"
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(default or (60 if kind.startswith("int_") else 2.5))
    return _SUBJECT.sub("must ", message.removeprefix("Value error, "), count=1)
