"""Extracts the power level that a call asked for. The price of the call may depend on it, so it is stored with the
call.

The level is the first of: `metadata.power_level`; `power_level` in the metadata of the call's row in LiteLLM's logs
(`spend_logs_metadata`); the first request tag `power:<level>`.
"""

from collections.abc import Mapping
from re import compile as re_compile
from typing import Any

import msgspec
from msgspec import Raw

from schemas.decoding import UNDECODABLE
from schemas.wire import LEVEL_METADATA, TAGS

#: The members of `metadata` that are read.
NAMES = LEVEL_METADATA
TAG = "power:"
#: A longer value is not a list of names.
_MAX_BYTES = 64 << 10
_LEVEL = re_compile(r"[a-z0-9_-]{1,32}")
#: Every way to ask for a level contains this word, perhaps with escaped letters.
_HINT, _ESCAPED = b"power", b"\\u00"
_decode = msgspec.json.decode


def may_ask(written: bytes) -> bool:
    """Return whether this JSON may contain a power level. Most elements do not, and a search for a word costs little."""
    return _HINT in written or _ESCAPED in written


def level_of(taken: Mapping[str, Raw]) -> str:
    """Return the level in lower case, from the members that were taken out of a call; `""` = none, or no plain word."""
    if (raw := taken.get("power_level")) is not None and (level := _word(_loaded(raw))):
        return level
    if (raw := taken.get("spend_logs_metadata")) is not None and may_ask(written := bytes(memoryview(raw))):
        members = _loaded(written)
        if isinstance(members, dict) and (level := _word(members.get("power_level"))):
            return level
    if (raw := taken.get(TAGS)) is not None and may_ask(written := bytes(memoryview(raw))):
        tags = _loaded(written)
        for tag in tags if isinstance(tags, list) else ():
            if isinstance(tag, str) and tag.startswith(TAG) and (level := _word(tag.removeprefix(TAG))):
                return level
    return ""


def _word(value: Any) -> str:
    level = value.strip().lower() if isinstance(value, str) else ""
    return level if _LEVEL.fullmatch(level) else ""


def _loaded(raw: bytes | Raw) -> Any:
    """Return the decoded value; a string is decoded once more, because exports of databases have JSON in strings."""
    written = bytes(memoryview(raw))
    if len(written) > _MAX_BYTES:
        return None
    try:
        value = _decode(written)
        return _decode(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
    except UNDECODABLE:
        return None
