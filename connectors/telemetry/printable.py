"""Makes text from outside safe to print by escaping characters that control a terminal.

Customer ids, model names and reasons come from clients of LiteLLM. An escape sequence, a line break or a bidirectional
mark could forge or hide a line, or change the title of the operator's window.
"""

from re import Match
from re import compile as re_compile
from typing import Any, Final

#: C0, DEL and C1; soft hyphen, marks of direction, zero-width and line separators, tags (Unicode 15, category Cf, Zl, Zp).
_STEERS: Final = re_compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u070f\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)


def shown(text: str, *, lines: bool = False) -> str:
    """Return `text` with each such character escaped as in Python, `\\x1b` or `\\u202e`; different texts stay
    different.

    Args:
        lines: keep line breaks and tabs, because they are ours.
    """
    return _STEERS.sub(_but_lines if lines else _written, text)


def shown_json(text: str) -> str:
    """Return JSON text with each such character escaped as in JSON, so its values stay the same. Line breaks between
    values stay.
    """
    return _STEERS.sub(_in_json, text)


def shown_in(value: Any) -> Any:
    """Return a copy of a tree of dicts and lists with each text escaped."""
    match value:
        case str():
            return shown(value)
        case dict():
            return {shown(name): shown_in(inner) for name, inner in value.items()}
        case list():
            return [shown_in(inner) for inner in value]
        case _:
            return value


def _written(match: Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _but_lines(match: Match[str]) -> str:
    return match[0] if match[0] in "\n\t" else _written(match)


def _in_json(match: Match[str]) -> str:
    sign = match[0]
    if sign in "\n\t":
        return sign
    units = sign.encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
