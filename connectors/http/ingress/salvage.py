"""What is left of an element that strict JSON or its types refuse: every allow-listed field that is sound.

Python senders write `NaN`, lone surrogates and raw control characters, and call it JSON. Where such
a value stands in a field that is dropped anyway (a prompt, an answer), the call is as good as any;
only a field that would be stored must be sound.
"""

import json
from decimal import Decimal
from typing import Any, get_args

import msgspec
from msgspec import Raw

from connectors.http.ingress.rejections import BAD_NUMBER, NOT_AN_OBJECT, NOT_JSON, TOO_DEEP, WRONG_TYPE, Refused
from schemas.wire import Call, CloudEvent

_encode = msgspec.json.Encoder().encode
_NOT_A_NUMBER = object()  # NaN, Infinity, -Infinity
_loose = json.JSONDecoder(parse_float=Raw, parse_int=Raw, parse_constant=lambda _: _NOT_A_NUMBER, strict=False).decode


def salvage(element: bytes, of: type[Call] | type[CloudEvent] = Call) -> bytes | None:
    """The allow-listed element as JSON; None for a `null`, which LiteLLM sends for a call it cannot describe.

    Args:
        of: whose fields are allowed.

    Raises:
        Refused: `not_json`, `too_deep`, `not_an_object`; `bad_number` or `wrong_type` with the sound
            rest of the call and the names of the unsound fields, never their values.
    """
    text = element.decode("utf-8-sig", "replace")
    try:
        tree = _loose(text)
    except json.JSONDecodeError as error:
        raise Refused(NOT_JSON, offset=len(text[: error.pos].encode("utf-8", "replace"))) from None
    except RecursionError:
        raise Refused(TOO_DEEP) from None
    if tree is None:
        return None
    if not isinstance(tree, dict):
        raise Refused(NOT_AN_OBJECT)
    bad: dict[str, str] = {}
    call = _encode(_sound(tree, _ALLOWED[of], "", bad))
    if bad:
        reason = BAD_NUMBER if BAD_NUMBER in bad.values() else WRONG_TYPE
        raise Refused(reason, ", ".join(bad), call=call)
    return call


def _sound(members: dict[str, Any], allowed: dict[str, Any], path: str, bad: dict[str, str]) -> dict[str, Any]:
    """The members that are allowed and of their type; the others are named in `bad` with the reason."""
    kept: dict[str, Any] = {}
    for name, of in allowed.items():
        if name not in members:
            continue
        value = members[name]
        if isinstance(of, dict) and isinstance(value, dict):
            kept[name] = _sound(value, of, f"{path}{name}.", bad)
        elif value is None:
            kept[name] = None
        elif isinstance(of, dict) or isinstance(value, dict | list):
            bad[path + name] = WRONG_TYPE
        elif value is _NOT_A_NUMBER:
            bad[path + name] = BAD_NUMBER
        else:
            value = _without_surrogates(value) if isinstance(value, str) else value
            try:
                of.decode(_encode(value))
                kept[name] = value
            except msgspec.DecodeError:
                bad[path + name] = BAD_NUMBER if isinstance(value, Raw) and _is_number(of.type) else WRONG_TYPE
    return kept


def _without_surrogates(text: str) -> str:
    """A surrogate without its other half becomes U+FFFD: no topic, key or database takes it."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_number(type_: Any) -> bool:
    return not {Decimal, float}.isdisjoint(get_args(type_))


def _allow_list(of: type[msgspec.Struct]) -> dict[str, Any]:
    """Field name to its decoder, or to the allow-list of a nested struct."""
    return {field.name: _check_of(field.type) for field in msgspec.structs.fields(of)}


def _check_of(type_: Any) -> Any:
    for one in get_args(type_):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return _allow_list(one)
    return msgspec.json.Decoder(type_)


_ALLOWED: dict[type[msgspec.Struct], dict[str, Any]] = {of: _allow_list(of) for of in (Call, CloudEvent)}
