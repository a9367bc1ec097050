"""A body is cut into its elements without being understood: nothing here looks inside a call.

Senders write one object, an array, NDJSON or `{"events": [...]}` and label them all
`application/json`, so the bytes decide. msgspec cuts well-formed arrays; when it refuses one (a `NaN`
literal, a lone surrogate, endless nesting) a bracket counter finds the same cuts, so that the
damage stays in the element that has it.
"""

import re
from json import loads

import msgspec
from msgspec import Raw

from connectors.http.ingress.rejections import NOT_JSON, TOO_MANY, Refused

Element = bytes | memoryview | Raw

#: More than LiteLLM's smallest calls fit into 64 MiB; bounds the memory a body of tiny elements takes.
MAX_ELEMENTS = 200_000
#: With more commas than this the bracket counter, which stops at `MAX_ELEMENTS`, does the cutting.
_MAX_COMMAS = 4_000_000

_raw = msgspec.json.Decoder(Raw).decode
_raws = msgspec.json.Decoder(list[Raw]).decode
_members_by_key = msgspec.json.Decoder(dict[str, Raw]).decode

_BLANK = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*")
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_KEY = re.compile(rb"[ \t\r\n]*(" + _TEXT + rb")[ \t\r\n]*:[ \t\r\n]*", re.DOTALL)
_TO_COMMA_OR_BRACKET = re.compile(rb'[^"\[\]{},]*+(?:' + _TEXT + rb'[^"\[\]{},]*+)*+', re.DOTALL)
_TO_BRACKET = re.compile(rb'[^"\[\]{}]*+(?:' + _TEXT + rb'[^"\[\]{}]*+)*+', re.DOTALL)


def split(body: bytes, wrappers: tuple[str, ...] = ()) -> list[Element]:
    """The elements of a body, in order, unparsed.

    Args:
        wrappers: keys whose value, an array or one object, is taken instead of the object around it.

    Raises:
        Refused: `not_json` for an array that is cut off or never ends, `too_many_elements` above `MAX_ELEMENTS`.
            A single object is not checked here: parsing it will tell.
    """
    at = _end_of(_BLANK, body, 0)
    first = body[at : at + 1]
    if first == b"[":
        return _array(memoryview(body)[at:], commas=body.count(b","))
    if first == b"{" and wrappers and (inner := _unwrap(memoryview(body)[at:], wrappers)) is not None:
        start = _end_of(_BLANK, inner, 0)
        return _array(inner[start:], commas=body.count(b",")) if bytes(inner[start : start + 1]) == b"[" else [inner]
    line_end = body.find(b"\n", at)
    if line_end >= 0 and _whole(memoryview(body)[at:line_end]):
        return _lines(body, at)
    return [body]


def _array(view: memoryview, commas: int) -> list[Element]:
    elements = list[Element]()
    if commas <= _MAX_COMMAS:
        try:
            elements += _raws(view)
        except (msgspec.DecodeError, RecursionError):
            elements += _members_to_the_end(view)
    else:
        elements += _members_to_the_end(view)
    _check(len(elements))
    return elements


def _unwrap(view: memoryview, wrappers: tuple[str, ...]) -> memoryview | None:
    """The value of the first of `wrappers`; None when there is none, or this is not one object."""
    try:
        members = _members_by_key(view)
        return next((memoryview(members[name]) for name in wrappers if name in members), None)
    except (msgspec.DecodeError, RecursionError):
        return _unwrap_by_brackets(view, wrappers)


def _unwrap_by_brackets(view: memoryview, wrappers: tuple[str, ...]) -> memoryview | None:
    try:
        for member in _members_to_the_end(view):
            key = _KEY.match(member)
            if key is not None and loads(bytes(key[1])) in wrappers:
                return member[key.end() :]
    except (Refused, ValueError):
        return None
    return None


def _lines(body: bytes, at: int) -> list[Element]:
    view, lines = memoryview(body), list[Element]()
    while at < len(body):
        end = body.find(b"\n", at)
        end = len(body) if end < 0 else end
        if _end_of(_BLANK, view[at:end], 0) < end - at:
            lines.append(view[at:end])
            _check(len(lines))
        at = end + 1
    return lines


def _whole(line: memoryview) -> bool:
    """A first line that is complete by itself makes the body NDJSON; of a pretty-printed object it never is."""
    try:
        _raw(line)
    except (msgspec.DecodeError, RecursionError):
        try:
            return bytes(line[:1]) == b"{" and bool(_members_to_the_end(line))
        except Refused:
            return False
    return True


def _members_to_the_end(view: memoryview) -> list[memoryview]:
    """The members of the array or object that `view` opens with and that must fill it, by counting brackets."""
    members, end = _members(view)
    if _end_of(_BLANK, view, end) != len(view):
        raise Refused(NOT_JSON, "more after the end", offset=end)
    if len(members) == 1 and _end_of(_BLANK, members[0], 0) == len(members[0]):
        return []
    return members


def _members(view: memoryview) -> tuple[list[memoryview], int]:
    members: list[memoryview] = []
    depth, start, at = 1, 1, 1
    while True:
        at = _end_of(_TO_COMMA_OR_BRACKET if depth == 1 else _TO_BRACKET, view, at)
        sign = bytes(view[at : at + 1])
        if sign == b",":
            members.append(view[start:at])
            start = at + 1
            _check(len(members))
        elif sign in (b"[", b"{"):
            depth += 1
        elif sign in (b"]", b"}"):
            depth -= 1
            if depth == 0:
                return [*members, view[start:at]], at + 1
        else:
            raise Refused(NOT_JSON, "ends inside an element", offset=at)
        at += 1


def _check(count: int) -> None:
    if count > MAX_ELEMENTS:
        raise Refused(TOO_MANY, f"more than {MAX_ELEMENTS} elements")


def _end_of(pattern: re.Pattern[bytes], text: bytes | memoryview, at: int) -> int:
    """Where a pattern that also matches nothing stops."""
    return found.end() if (found := pattern.match(text, at)) else at
