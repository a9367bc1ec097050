"""Splits a body into its elements without decoding them.

Senders write one object, an array, NDJSON or `{"events": [...]}`, all with `application/json`, so the bytes decide. Calls in a
wrapper are found when the element turns out not to be a call.

| the body begins with | and | elements |
|---|---|---|
| `[` | msgspec decodes it | the members of the array |
| `[` | msgspec refuses it: `NaN`, a lone surrogate, endless nesting | the same, found by counting brackets: only the damaged element is lost |
| anything else | its first line is complete, or most lines are objects | the lines (NDJSON) |
| anything else | otherwise | the whole body |
"""

import re
from collections.abc import Sequence
from json import JSONDecodeError, loads

import msgspec
from msgspec import Raw

from connectors.ingest.brackets import TEXT, end_of_nested
from connectors.ingest.rejection_record import InvalidElement
from schemas.decoding import UNDECODABLE
from schemas.reasons import NOT_JSON, TOO_MANY
from schemas.wire import WRAPPERS
from streams.core.metering.tolerant_reader import AMOUNTS, loose_json

Element = bytes | memoryview | Raw

#: A body of 64 MiB can hold more elements only if they are smaller than LiteLLM's calls; this limits the memory of tiny elements.
MAX_ELEMENTS = 200_000
#: An array with more elements is split by counting brackets, which stops at `MAX_ELEMENTS`.
_MAX_CUT_AT_ONCE = 4_000_000
#: How many values a member may have without a comma between them; that is not JSON, and each would be scanned.
_MAX_OPENED = 1000
#: How many bytes show whether a sender printed one object on many lines.
_PRINTED = 1 << 20

_raw = msgspec.json.Decoder(Raw).decode
_raws = msgspec.json.Decoder(list[Raw]).decode
_members_by_key = msgspec.json.Decoder(dict[str, Raw]).decode

_WRAPPER_KEYS = tuple(f'"{name}"'.encode() for name in WRAPPERS)
#: A CloudEvent may have `data` even if its version is missing; other envelopes have a `source`, too.
_VERSION, _EVENT = "specversion", frozenset({"source", "subject"})
_NO_DATA = tuple(name for name in WRAPPERS if name != "data")
#: A key may be written with escapes.
_ESCAPED = b"\\u00"
_IDS = frozenset({"id", "request_id", "litellm_call_id", "transaction_id"})

_BLANK = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*")
_KEY = re.compile(rb"[ \t\r\n]*(" + TEXT + rb")[ \t\r\n]*:[ \t\r\n]*", re.DOTALL)
_TO_COMMA_OR_BRACKET = re.compile(rb'[^"\[\]{},]*+(?:' + TEXT + rb'[^"\[\]{},]*+|(?!))*+', re.DOTALL)


class WrappedCalls(Exception):  # control flow, not an error
    """An element is not a call but contains calls.

    Attributes:
        inner: the array or object in the wrapper.
    """

    def __init__(self, inner: memoryview) -> None:
        super().__init__()
        self.inner = inner


def split(body: bytes | memoryview) -> list[Element]:
    """Return the elements of a body, in order, not decoded.

    Raises:
        InvalidElement: `not_json`: an array is truncated or never ends; `too_many_elements`: more than `MAX_ELEMENTS`. A single
            object is not checked here, because decoding it checks it.
    """
    if body[:1] == b"{" and isinstance(body, bytes) and b"\n" not in body:
        return [body]  # most bodies
    at = _end_of(_BLANK, body, 0)
    if bytes(body[at : at + 1]) == b"[":
        return _array(memoryview(body)[at:])
    if isinstance(body, memoryview):
        return [body]
    line_end = body.find(b"\n", at)
    if line_end >= 0 and (_whole(memoryview(body)[at:line_end]) or _is_damaged_ndjson(body, at)):
        return _lines(body, at)
    return [body]


def wrapped_in(element: Element) -> memoryview | None:
    """Return the calls in a wrapper such as `{"events": [...]}` or `{"event": {...}}`; None for anything else.

    An object with an id and a cost of its own is a call, whatever else it contains. An object with only an id (as an envelope may
    have) or only a cost (maybe the sum) contains calls if its members have an id or a cost too.
    """
    view = memoryview(element)
    text = element if isinstance(element, bytes) else bytes(view)
    if not any(key in text for key in _WRAPPER_KEYS) and _ESCAPED not in text:
        return None
    view = view[_end_of(_BLANK, view, 0) :]
    members = members_of(view) if bytes(view[:1]) == b"{" else None
    if members is None or _VERSION in members or not (AMOUNTS.isdisjoint(members) or _IDS.isdisjoint(members)):
        return None
    is_bare = (_IDS | AMOUNTS).isdisjoint(members)
    calls = []
    for name in WRAPPERS if _EVENT.isdisjoint(members) else _NO_DATA:
        inner = members.get(name)
        if inner is not None:
            inner = inner[_end_of(_BLANK, inner, 0) :]
            if bytes(inner[:1]) in (b"[", b"{") and (is_bare or _holds_a_call(inner)):
                calls.append(inner)
    if not calls:
        return None
    return calls[0] if len(calls) == 1 else _together(calls)


def calls_in(element: bytes) -> memoryview | None:
    """Return the complete calls, with an id and a cost each, in any member of an object that is not a call; None if
    there are none.
    """
    view = memoryview(element)
    members = members_of(view[_end_of(_BLANK, view, 0) :]) or {}
    inner = [member[_end_of(_BLANK, member, 0) :] for member in members.values()]
    calls = [call for call in inner if bytes(call[:1]) in (b"[", b"{") and _holds_a_call(call, whole=True)]
    if not calls:
        return None
    return calls[0] if len(calls) == 1 else _together(calls)


def _holds_a_call(inner: memoryview, *, whole: bool = False) -> bool:
    """Return whether the object, or any object of the array, has an id or an amount; with `whole` it must have both."""
    try:
        elements = split(inner)
    except InvalidElement:
        return True
    for element in elements:
        view = memoryview(element)
        members = members_of(view[_end_of(_BLANK, view, 0) :])
        if members is None:
            continue
        has = not _IDS.isdisjoint(members), not AMOUNTS.isdisjoint(members)
        if all(has) if whole else any(has):
            return True
    return False


def _together(calls: Sequence[memoryview]) -> memoryview:
    """Return all elements of several wrappers in one object, as one array. Raises: InvalidElement: one of them is
    truncated.
    """
    elements = [bytes(memoryview(element)) for inner in calls for element in split(inner)]
    return memoryview(b"[" + b",".join(elements) + b"]")


def members_of(view: memoryview) -> dict[str, memoryview] | None:
    """Return the members of an object by name, not decoded; None if it is not an object."""
    try:
        return {name: memoryview(raw) for name, raw in _members_by_key(view).items()}
    except UNDECODABLE:
        pass
    if bytes(view[:1]) != b"{":
        return None
    try:
        members = [(member, key) for member in _members_to_the_end(view) if (key := _KEY.match(member)) is not None]
        return {str(loads(bytes(key[1]))): member[key.end() :] for member, key in members}
    except (InvalidElement, ValueError):
        return None


def _is_damaged_ndjson(body: bytes, at: int) -> bool:
    """Return whether a body whose first line is damaged is NDJSON: most lines are objects, and it is not one object
    that a sender printed on many lines, complete or truncated.
    """
    if body.find(b"\n{", at) < 0 or _whole(memoryview(body)[at:]):
        return False
    text = body[at : at + _PRINTED].decode("utf-8", "replace").rstrip()
    try:
        loose_json(text)
    except JSONDecodeError as error:
        if error.pos >= len(text):
            return False
    except RecursionError:
        return False
    else:
        return False
    lines = [line for line in body[at:].split(b"\n", MAX_ELEMENTS) if not line.isspace() and line]
    objects = sum(line.lstrip().startswith(b"{") and _whole(memoryview(line)) for line in lines)
    return 2 * objects >= len(lines) and objects > 0


def _array(view: memoryview) -> list[Element]:
    elements = list[Element]()
    # An element and its comma are at least two bytes. Counting the commas of a large body takes as long as splitting it.
    if len(view) <= 2 * _MAX_CUT_AT_ONCE or bytes(view).count(b",") <= _MAX_CUT_AT_ONCE:
        try:
            elements += _raws(view)
        except UNDECODABLE:
            elements += _members_to_the_end(view)
    else:
        elements += _members_to_the_end(view)
    _check(len(elements))
    return elements


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
    """Return whether a line is complete JSON. If the first one is, the body is NDJSON; the first line of a printed
    object never is.
    """
    try:
        _raw(line)
    except UNDECODABLE:
        try:
            return bytes(line[:1]) == b"{" and bool(_members_to_the_end(line))
        except InvalidElement:
            return False
    return True


def _members_to_the_end(view: memoryview) -> list[memoryview]:
    """Return the members of the array or object that fills `view`, found by counting brackets. Raises: InvalidElement."""
    members, end = _members(view)
    if _end_of(_BLANK, view, end) != len(view):
        raise InvalidElement(NOT_JSON, "there is data after the end of the JSON", offset=end)
    if len(members) == 1 and _end_of(_BLANK, members[0], 0) == len(members[0]):
        return []
    return members


def _members(view: memoryview) -> tuple[list[memoryview], int]:
    members: list[memoryview] = []
    start, at, opened = 1, 1, 0
    while True:
        at = _end_of(_TO_COMMA_OR_BRACKET, view, at)
        sign = bytes(view[at : at + 1])
        if sign == b",":
            members.append(view[start:at])
            start, opened = at + 1, 0
            _check(len(members))
        elif sign in (b"[", b"{"):
            opened += 1
            if opened > _MAX_OPENED:
                raise InvalidElement(NOT_JSON, "there is no comma between two values", offset=at)
            at = end_of_nested(view, at + 1)
            continue
        elif sign in (b"]", b"}"):
            return [*members, view[start:at]], at + 1
        else:
            raise InvalidElement(NOT_JSON, "the body ends inside an element", offset=at)
        at += 1


def _check(count: int) -> None:
    if count > MAX_ELEMENTS:
        raise InvalidElement(TOO_MANY, f"more than {MAX_ELEMENTS} elements")


def _end_of(pattern: re.Pattern[bytes], text: bytes | memoryview, at: int) -> int:
    """Return where the match ends; the pattern also matches the empty string."""
    return match.end() if (match := pattern.match(text, at)) else at
