"""A body is cut into its elements without being understood: nothing here looks inside a call.

Senders write one object, an array, NDJSON or `{"events": [...]}` and label them all
`application/json`, so the bytes decide; what is wrapped is found when the element turns out to be no call. msgspec cuts well-formed arrays; when it refuses one (a `NaN`
literal, a lone surrogate, endless nesting) a bracket counter finds the same cuts, so that the
damage stays in the element that has it.
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

#: More than LiteLLM's smallest calls fit into 64 MiB; bounds the memory a body of tiny elements takes.
MAX_ELEMENTS = 200_000
#: Where an array may have more elements than this, the bracket counter, which stops at `MAX_ELEMENTS`, does the cutting.
_MAX_CUT_AT_ONCE = 4_000_000
#: Of a member that is one value; more of them are no JSON, and would be looked at one by one.
_MAX_OPENED = 1000
#: That somebody printed one object on many lines shows in the first of it.
_PRINTED = 1 << 20

_raw = msgspec.json.Decoder(Raw).decode
_raws = msgspec.json.Decoder(list[Raw]).decode
_members_by_key = msgspec.json.Decoder(dict[str, Raw]).decode

_WRAPPER_KEYS = tuple(f'"{name}"'.encode() for name in WRAPPERS)
#: A CloudEvent's data are its own, also where its version is not told; other envelopes name their source, too.
_VERSION, _EVENT = "specversion", frozenset({"source", "subject"})
_NO_DATA = tuple(name for name in WRAPPERS if name != "data")
#: A key may be written with escapes.
_ESCAPED = b"\\u00"
_IDS = frozenset({"id", "request_id", "litellm_call_id", "transaction_id"})

_BLANK = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*")
_KEY = re.compile(rb"[ \t\r\n]*(" + TEXT + rb")[ \t\r\n]*:[ \t\r\n]*", re.DOTALL)
_TO_COMMA_OR_BRACKET = re.compile(rb'[^"\[\]{},]*+(?:' + TEXT + rb'[^"\[\]{},]*+)*+', re.DOTALL)


class WrappedCalls(Exception):  # a way on, not an error
    """An element is no call and holds calls.

    Attributes:
        inner: the array or the object that was wrapped.
    """

    def __init__(self, inner: memoryview) -> None:
        super().__init__()
        self.inner = inner


def split(body: bytes | memoryview) -> list[Element]:
    """The elements of a body, in order, unparsed.

    Raises:
        Refused: `not_json` for an array that is cut off or never ends, `too_many_elements` above `MAX_ELEMENTS`.
            A single object is not checked here: parsing it will tell.
    """
    if body[:1] == b"{" and isinstance(body, bytes) and b"\n" not in body:
        return [body]  # as most are
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
    """The calls that senders wrapped: `{"events": [...]}`, `{"event": {...}}` and their like; None for anything else.

    An object with an id and a cost of its own is a call, whatever else is in it. One with an id alone, as an envelope may
    have, or with a cost alone, which may be the sum, holds calls where what is inside has an id or a cost as well.
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
    found = []
    for name in WRAPPERS if _EVENT.isdisjoint(members) else _NO_DATA:
        inner = members.get(name)
        if inner is not None:
            inner = inner[_end_of(_BLANK, inner, 0) :]
            if bytes(inner[:1]) in (b"[", b"{") and (is_bare or _holds_a_call(inner)):
                found.append(inner)
    if not found:
        return None
    return found[0] if len(found) == 1 else _together(found)


def calls_in(element: bytes) -> memoryview | None:
    """What an object that is no call holds under any name: whole calls, with an id and a cost each; None without one."""
    view = memoryview(element)
    members = members_of(view[_end_of(_BLANK, view, 0) :]) or {}
    inner = [one[_end_of(_BLANK, one, 0) :] for one in members.values()]
    found = [one for one in inner if bytes(one[:1]) in (b"[", b"{") and _holds_a_call(one, whole=True)]
    if not found:
        return None
    return found[0] if len(found) == 1 else _together(found)


def _holds_a_call(inner: memoryview, *, whole: bool = False) -> bool:
    """The object, or any of the array, has an id or an amount, and a `whole` one both."""
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


def _together(found: Sequence[memoryview]) -> memoryview:
    """Of several wrappers in one object everything: one array. Raises: Refused: one of them is cut."""
    elements = [bytes(memoryview(element)) for inner in found for element in split(inner)]
    return memoryview(b"[" + b",".join(elements) + b"]")


def members_of(view: memoryview) -> dict[str, memoryview] | None:
    """An object's members by name, unparsed; None for what is none."""
    try:
        return {name: memoryview(raw) for name, raw in _members_by_key(view).items()}
    except UNDECODABLE:
        pass
    if bytes(view[:1]) != b"{":
        return None
    try:
        found = [(member, key) for member in _members_to_the_end(view) if (key := _KEY.match(member)) is not None]
        return {str(loads(bytes(key[1]))): member[key.end() :] for member, key in found}
    except (InvalidElement, ValueError):
        return None


def _is_damaged_ndjson(body: bytes, at: int) -> bool:
    """The first line is cut, and the body is NDJSON all the same: most lines are objects, and it is no one object that
    somebody printed on many lines, be it whole or cut at its end."""
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
    # An element and its comma are two bytes at least; counting the commas of a large body takes as long as cutting it.
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
    """A first line that is complete by itself makes the body NDJSON; of a pretty-printed object it never is."""
    try:
        _raw(line)
    except UNDECODABLE:
        try:
            return bytes(line[:1]) == b"{" and bool(_members_to_the_end(line))
        except InvalidElement:
            return False
    return True


def _members_to_the_end(view: memoryview) -> list[memoryview]:
    """The members of the array or object that `view` opens with and that must fill it, by counting brackets."""
    members, end = _members(view)
    if _end_of(_BLANK, view, end) != len(view):
        raise InvalidElement(NOT_JSON, "more after the end", offset=end)
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
                raise InvalidElement(NOT_JSON, "values without a comma between them", offset=at)
            at = end_of_nested(view, at + 1)
            continue
        elif sign in (b"]", b"}"):
            return [*members, view[start:at]], at + 1
        else:
            raise InvalidElement(NOT_JSON, "ends inside an element", offset=at)
        at += 1


def _check(count: int) -> None:
    if count > MAX_ELEMENTS:
        raise InvalidElement(TOO_MANY, f"more than {MAX_ELEMENTS} elements")


def _end_of(pattern: re.Pattern[bytes], text: bytes | memoryview, at: int) -> int:
    """Where a pattern that also matches nothing stops."""
    return found.end() if (found := pattern.match(text, at)) else at
