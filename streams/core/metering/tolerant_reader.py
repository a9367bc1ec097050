"""Reads a call with wrong types field by field: an invalid detail is dropped, and the call is kept.

Money, identity, time and customer are never guessed. An invalid one is reported, and the caller refuses the call. Every
other field is converted if its meaning is clear (`"15"` tokens), or left out.
"""

import json
from decimal import Decimal, DecimalException
from re import compile as re_compile
from typing import Any, Final, get_args

import msgspec
from msgspec import Raw

from schemas.errors import Rejected
from schemas.moments import MOMENT_FORM
from schemas.money import AMOUNT_FORM, parse_amount
from schemas.wire import Call, CallMetadata, CloudEvent, CloudEventData, Count, Id, LagoProperties, Number, Time
from streams.core.metering.flags import NO, YES
from streams.core.metering.json_budget import may_be_read
from streams.core.metering.token_counts import picoseconds

#: The reasons for which a required field is refused.
WRONG_TYPE, BAD_NUMBER = "wrong_type", "bad_number"
MAX_COUNT = 10**12

#: Fields of a call's identity; for a CloudEvent also its source.
_IDENTITY: Final = frozenset({"id", "request_id", "litellm_call_id", "transaction_id", "source"})
#: Fields that may name the customer, by their names in the response.
CUSTOMER_FIELDS: Final = frozenset(
    {
        *("customer_id", "external_customer_id", "external_subscription_id", "end_user", "subject"),
        *("user", "user_id", "team_id", "organization_id", "api_key"),
        *("user_api_key_end_user_id", "user_api_key_user_id", "user_api_key_team_id", "user_api_key_org_id"),
        "user_api_key_hash",
    }
)
#: Fields that hold money.
AMOUNTS: Final = frozenset({"spend", "response_cost", "cost_usd", "cost", "precise_total_amount_cents"})
#: Says which money an amount is. An unreadable one is refused, because it may not be the dollar.
_CURRENCY: Final = "currency"
#: Objects that hold money. Without them the cost of a call is unknown.
_HOLDS_MONEY = frozenset({LagoProperties, CloudEventData})

_WHOLE = re_compile(r"[0-9]{1,13}(?:\.0*)?")
_MISSING: Final = object()
_LONGEST_JSON = 1 << 20


class NumberText(str):
    """A number as it was written in the JSON."""

    __slots__ = ()


class NotANumber:
    """NaN, Infinity or -Infinity: Python writes them, JSON does not have them."""


_NOT_A_NUMBER: Final = NotANumber()
_loose = json.JSONDecoder(
    parse_float=NumberText, parse_int=NumberText, parse_constant=lambda _: _NOT_A_NUMBER, strict=False
).decode


def loose_json(text: str) -> Any:
    """Parse JSON as Python's senders write it: `NaN`, lone surrogates and raw control characters are accepted.

    Raises:
        json.JSONDecodeError, RecursionError.
    """
    return _loose(text)


class PartialCall:
    """The readable part of a call.

    Attributes:
        kept: the valid allow-listed members, to be encoded.
        bad: the reason for each invalid required field, by path.
        odd: paths of details that were converted or left out.
        left_out: those that were left out.
    """

    def __init__(self, tree: dict[str, Any], of: type[Call] | type[CloudEvent]) -> None:
        self.bad: dict[str, str] = {}
        self.odd: list[str] = []
        self.left_out: list[str] = []
        self.kept = self._object(tree, of, "")

    def reason(self) -> str:
        """Return one reason for all of `bad`: `BAD_NUMBER` if it occurs, otherwise `WRONG_TYPE`."""
        return BAD_NUMBER if BAD_NUMBER in self.bad.values() else WRONG_TYPE

    def note(self) -> str:
        """Return a text for people with the details that were converted or left out, at most ten paths."""
        return f"odd: {', '.join(self.odd[:10])}" if self.odd else ""

    def _object(self, members: dict[str, Any], of: type[msgspec.Struct], path: str) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, kind in _FIELDS[of].items():
            value = members.get(name, _MISSING)
            if value is _MISSING:
                continue
            if value is None:
                kept[name] = None
            elif isinstance(kind, type):
                self._nested(kept, name, value, kind, path + name)
            else:
                self._leaf(kept, name, value, kind, path + name)
        return kept

    def _nested(self, kept: dict[str, Any], name: str, value: Any, of: type[msgspec.Struct], path: str) -> None:
        nested = value
        if (
            isinstance(value, str)
            and not isinstance(value, NumberText)
            and len(value) <= _LONGEST_JSON
            and may_be_read(value)
        ):
            try:
                nested = _loose(value)
            except (json.JSONDecodeError, RecursionError):
                nested = value
        if isinstance(nested, dict):
            if nested is not value:
                self.odd.append(path)
            kept[name] = self._object(nested, of, f"{path}.")
        elif of in _HOLDS_MONEY and not _is_empty(nested):
            self.bad[path] = WRONG_TYPE
        else:
            self._leave_out(path)

    def _leaf(self, kept: dict[str, Any], name: str, value: Any, kind: str, path: str) -> None:
        if kind == _MONEY:
            made = _amount(value)
        elif kind == _TIME:
            made = _moment(value)
        elif kind == _COUNT:
            made = _count(value)
        elif kind == _SECONDS:
            made = _seconds(value)
        elif kind == _ID:
            made = _id(value)
        else:
            made = _status(value) if name == "status" else _READ[kind](value)
        if made is not _MISSING:
            kept[name] = made
            if kind not in (_MONEY, _TIME, _ID) and _differs(made, value):
                self.odd.append(path)
        elif kind == _TIME or name in AMOUNTS or name in _IDENTITY or name in CUSTOMER_FIELDS or name == _CURRENCY:
            is_number = value is _NOT_A_NUMBER or (kind in (_MONEY, _TIME) and isinstance(value, NumberText))
            self.bad[path] = BAD_NUMBER if is_number else WRONG_TYPE
        else:
            self._leave_out(path)

    def _leave_out(self, path: str) -> None:
        self.odd.append(path)
        self.left_out.append(path)

    def lost_counts(self) -> list[str]:
        """Return the paths of the counts of tokens that were left out, without those of LiteLLM's details."""
        return [
            path for path in self.left_out if "tokens" in path.rpartition(".")[2] and not path.startswith("metadata.")
        ]


def _is_empty(value: Any) -> bool:
    """Return whether the value is empty, so that it holds no money. PHP writes an object without members as `[]`."""
    return value == [] or (isinstance(value, str) and not value.strip())


def _differs(made: Any, value: Any) -> bool:
    return _sort_of(made) != _sort_of(value)


def _sort_of(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, NumberText | Raw | int) else "text"


def _amount(value: Any) -> Any:
    """Return the amount as its own text, from a number or a quoted text."""
    if not isinstance(value, str):
        return _MISSING
    try:
        parse_amount(value)
    except Rejected:
        return _MISSING
    return Raw(str(value)) if isinstance(value, NumberText) else value


def _moment(value: Any) -> Any:
    if isinstance(value, NumberText):
        return Raw(str(value)) if _finite(value) else _MISSING
    if not isinstance(value, str):
        return _MISSING
    return clean(value).strip() or None


def _finite(number: str) -> bool:
    try:
        return len(number) < 400 and float(number) not in (float("inf"), float("-inf"))
    except (ValueError, OverflowError):
        return False


def _count(value: Any) -> Any:
    if not isinstance(value, str):
        return _MISSING
    text = value.strip()
    if _WHOLE.fullmatch(text):
        count = int(text.partition(".")[0])
        return count if count <= MAX_COUNT else _MISSING
    try:
        number = Decimal(parse_amount(text)) if len(text) < 40 else None
        if number is None or not 0 <= number <= MAX_COUNT or number != int(number):
            return _MISSING
        return int(number)
    except (Rejected, DecimalException):
        return _MISSING


def _seconds(value: Any) -> Any:
    """Return seconds of sound or video with their fraction, as their own digits, down to a picosecond."""
    if not isinstance(value, str):
        return _MISSING
    try:
        number = parse_amount(value.strip())
    except Rejected:
        return _MISSING
    if not 0 <= number <= MAX_COUNT:
        return _MISSING
    return Raw(f"{picoseconds(number):f}")  # rounded before, because 1e-999999999 written out would fill the memory


def _id(value: Any) -> Any:
    if isinstance(value, NumberText):
        return str(value) if value.lstrip("-").isdigit() else _MISSING
    return clean(value) if isinstance(value, str) else _MISSING


def _text(value: Any) -> Any:
    return clean(str(value)) if isinstance(value, str) else _MISSING


def _flag(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in YES:
        return True
    return False if word in NO and isinstance(value, str) else _MISSING


def _status(value: Any) -> Any:
    """Return LiteLLM's status word. An HTTP status or a boolean is translated into one."""
    if isinstance(value, bool):
        return "success" if value else "failure"
    if isinstance(value, NumberText):
        code = int(value) if value.isdigit() and len(value) < 4 else 0
        return "success" if 200 <= code < 300 else "failure" if code >= 400 else _MISSING
    return _text(value)


def clean(text: str) -> str:
    """Remove NUL, which no database stores, and replace lone surrogates by U+FFFD."""
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "")


_MONEY, _TIME, _COUNT, _SECONDS, _ID, _TEXT, _FLAG = "money", "time", "count", "seconds", "id", "text", "flag"
_READ = {_TEXT: _text, _FLAG: _flag}
#: What each reader accepts, for messages.
_FORMS: Final = {
    _MONEY: AMOUNT_FORM,
    _TIME: MOMENT_FORM,
    _COUNT: f"a whole number from 0 to {MAX_COUNT}",
    _SECONDS: "a number of seconds, for example 1.5",
    _ID: "a text or a whole number",
    _TEXT: "a text",
    _FLAG: "true or false",
}


def _kind_of(type_: Any) -> Any:
    """Return how a field is read: the struct that it holds, or one of the kinds above."""
    known: dict[Any, str] = {Number: _MONEY, Time: _TIME, Count: _COUNT, Id: _ID}
    if (kind := known.get(type_)) is not None:
        return kind
    for arg in get_args(type_):
        if isinstance(arg, type) and issubclass(arg, msgspec.Struct):
            return arg
    return _FLAG if bool in get_args(type_) else _TEXT


def _fields_of(of: type[msgspec.Struct], into: dict[type[msgspec.Struct], dict[str, Any]]) -> None:
    into[of] = {
        field.name: _SECONDS if field.type == Count and field.name.endswith("seconds") else _kind_of(field.type)
        for field in msgspec.structs.fields(of)
    }
    for kind in into[of].values():
        if isinstance(kind, type) and kind not in into:
            _fields_of(kind, into)


def form_of(path: str) -> str:
    """Return what is accepted in the field at a path of `PartialCall.bad`, for messages; `""`: there is no such field."""
    for root in (Call, CloudEvent):
        kind: Any = root
        for name in path.split("."):
            kind = _FIELDS[kind].get(name) if isinstance(kind, type) else None
        if kind is not None:
            return _FORMS.get(kind, "a JSON object")
    return ""


def forms_of(paths: str) -> dict[str, str]:
    """Return what is accepted in each of some fields, by path; empty if the detail is a sentence.

    Args:
        paths: the detail of a refused call: paths of `PartialCall.bad`, with a comma between them; or a sentence.
    """
    forms = {path: form_of(path) for path in paths.split(", ")}
    return forms if all(forms.values()) else {}


_FIELDS: dict[type[msgspec.Struct], dict[str, Any]] = {}
for _root in (Call, CallMetadata, CloudEvent):
    _fields_of(_root, _FIELDS)
