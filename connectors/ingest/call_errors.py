"""Keeps the status code and the exception name of a failed call. Error messages are not kept, because they may contain
prompts.
"""

from re import compile as re_compile
from typing import Any, Final

import msgspec
from msgspec import Raw

from schemas.decoding import UNDECODABLE

_WORD = re_compile(r"[A-Za-z0-9_.]{1,64}")
_MAX_BYTES: Final = 64 << 10


class _Error(msgspec.Struct, gc=False):
    """The kept members of LiteLLM's `error_information`."""

    error_code: Any = None
    error_class: Any = None


_decode = msgspec.json.Decoder(_Error).decode


def error_members(error: Raw) -> list[bytes]:
    """Return members of a `CallContext` from the JSON of LiteLLM's `error_information`, without values that are not
    plain words.
    """
    written = bytes(memoryview(error))
    if len(written) > _MAX_BYTES:
        return []
    try:
        found = _decode(written)
    except UNDECODABLE:
        return []
    words = (("error_code", found.error_code), ("error_class", found.error_class))
    return [b'"%b":"%b"' % (name.encode(), text.encode()) for name, value in words if (text := _word(value))]


def _word(value: object) -> str:
    text = str(value) if type(value) in (str, int) else ""
    return text if _WORD.fullmatch(text) else ""
