"""Converts a value of the raw topic to usage: in one step if it is valid, field by field if a detail is not."""

from decimal import Decimal
from re import compile as re_compile

import msgspec
from msgspec import Raw

from schemas.customer_id import key_hash
from schemas.errors import Rejected
from schemas.normalised_call import Usage
from schemas.wire import ENVELOPE_VERSION, RULES, Call, RawRecord
from streams.core.metering.normalise import normalise, unknown_version
from streams.core.metering.tolerant_reader import AMOUNTS, PartialCall, clean, loose_json


class _Loose(RawRecord, gc=False):
    """A `RawRecord` with the call as the JSON that was stored."""

    call: Raw  # type: ignore[assignment]


class _Version(msgspec.Struct, gc=False):
    """The only field that every release of the envelope has."""

    v: int


_decode = msgspec.json.Decoder(RawRecord).decode
_decode_loose = msgspec.json.Decoder(_Loose).decode
_decode_version = msgspec.json.Decoder(_Version).decode
_decode_call = msgspec.json.Decoder(Call).decode
_encode = msgspec.json.Encoder().encode
#: Matches an escaped NUL, or an amount that is text.
_LOOK_AGAIN = re_compile(rb'\\u0000|(?:spend|cost|cost_usd|cents)"\s*:\s*"')
#: A reason of `normalise` that reading field by field may avoid, because there a blank time counts as absent.
_MAY_BE_A_DETAIL = frozenset({"bad_time"})
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError, ValueError)


def usage_of(
    value: bytes | None, customer_id: str, unit: Decimal, stored_us: int | None = None, clock_us: int = 0
) -> Usage:
    """Return the usage in a value of `litellm.usage.raw`, with its cost quantised to `unit` dollars.

    `stored_us`, `clock_us`: see `normalise`.

    Raises:
        Rejected: a reason of `normalise`, or `malformed`: the value is no record.
    """
    if value is None:
        raise Rejected("malformed", "the record has no value")
    try:
        record = _decode(value)
        if record.rules or _sound(record, value):
            return normalise(record, customer_id, unit, stored_us, clock_us)
    except Rejected as refusal:
        if refusal.reason not in _MAY_BE_A_DETAIL:
            raise
    except _UNREADABLE:
        pass
    return _carefully(value, customer_id, unit, stored_us, clock_us)


def _sound(record: RawRecord, value: bytes) -> bool:
    """Return whether a record of an older ingress needs no closer check. Plain-text keys are hashed here."""
    _without_keys(record.call)
    return _LOOK_AGAIN.search(value) is None


def _carefully(value: bytes, customer_id: str, unit: Decimal, stored_us: int | None, clock_us: int) -> Usage:
    """Read a record field by field, if no ingress of this release wrote it or the ingress could not check it."""
    try:
        if _decode_version(value).v > ENVELOPE_VERSION:
            raise unknown_version(_decode_version(value).v)
        return normalise(_record_of(_decode_loose(value)), customer_id, unit, stored_us, clock_us)
    except _UNREADABLE as error:
        raise Rejected("malformed", type(error).__name__) from error


def _record_of(loose: _Loose) -> RawRecord:
    tree = loose_json(bytes(memoryview(loose.call)).decode())
    if not isinstance(tree, dict):
        raise Rejected("malformed", "the call is no object")
    soft = PartialCall(tree, Call)
    if soft.bad:
        is_cost = all(path.rpartition(".")[2] in AMOUNTS for path in soft.bad)
        raise Rejected("bad_cost" if is_cost else soft.reason(), ", ".join(soft.bad))
    call = _decode_call(_encode(soft.kept))
    if loose.rules < RULES:
        _without_keys(call)
    metered = loose.metered
    if metered is not None:
        metered.properties = {clean(name): clean(text) for name, text in metered.properties.items()}
        metered.transaction_id, metered.code = clean(metered.transaction_id), clean(metered.code)
    fields = {"call": call, "note": loose.note or soft.note(), "power_level": clean(loose.power_level)}
    return RawRecord(**{**msgspec.structs.asdict(loose), **fields})


def _without_keys(call: Call) -> None:
    if call.api_key is not None:
        call.api_key = key_hash(str(call.api_key))
    if call.api_key_hash is not None:
        call.api_key_hash = key_hash(str(call.api_key_hash))
    metadata = call.metadata
    if metadata is not None and metadata.user_api_key_hash is not None:
        metadata.user_api_key_hash = key_hash(str(metadata.user_api_key_hash))
