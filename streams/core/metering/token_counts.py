"""Reads numbers of tokens and seconds. A number of tokens that is not from 0 to 1e12 and whole is left out as a detail."""

from decimal import Decimal
from typing import TypeVar

import msgspec

from schemas.rounding import quantise
from schemas.wire import Call, UsageObject

MAX_TOKENS = 10**12
_PLACES_OF_SECONDS = 12
_PICOSECOND = Decimal(1).scaleb(-_PLACES_OF_SECONDS)

copy = msgspec.structs.replace
S = TypeVar("S", bound=msgspec.Struct)


class OddCount(ArithmeticError):
    """The value is no whole number from 0 to 1e12."""


def count_of(value: float | int | None) -> int:
    """Return the count; 0 for None. Raises: OddCount."""
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    if value is None:
        return 0
    if not 0 <= value <= MAX_TOKENS or value != int(value):
        raise OddCount
    return int(value)


def picoseconds(seconds: Decimal) -> Decimal:
    """Return the seconds with their own digits; digits beyond a picosecond are rounded. At most 1e12 seconds."""
    is_finer = int(seconds.as_tuple().exponent) < -_PLACES_OF_SECONDS
    return quantise(seconds, _PICOSECOND) if is_finer else seconds


def with_sound_counts(call: Call) -> Call:
    """Return the call without the counts that are no whole number from 0 to 1e12."""
    return copy(
        call,
        **_sound_counts(call),
        metadata=call.metadata and copy(call.metadata, usage_object=_sound_usage(call.metadata.usage_object)),
        properties=call.properties and copy(call.properties, **_sound_counts(call.properties)),
        cloud_event=call.cloud_event
        and copy(call.cloud_event, data=call.cloud_event.data and _with_counts(call.cloud_event.data)),
    )


def _sound_usage(usage: UsageObject | None) -> UsageObject | None:
    if usage is None:
        return None
    return copy(
        _with_counts(usage),
        prompt_tokens_details=usage.prompt_tokens_details and _with_counts(usage.prompt_tokens_details),
        completion_tokens_details=usage.completion_tokens_details and _with_counts(usage.completion_tokens_details),
    )


def _with_counts(of: S) -> S:
    return copy(of, **_sound_counts(of))


def _sound_counts(of: msgspec.Struct) -> dict[str, int | None]:
    names = [name for name in of.__struct_fields__ if "tokens" in name and not name.endswith("details")]
    return {name: _soundcount_of(getattr(of, name)) for name in names}


def _soundcount_of(value: float | int | None) -> int | None:
    try:
        return None if value is None else count_of(value)
    except (OddCount, ValueError, OverflowError):  # NaN, infinity
        return None
