"""Moments come as seconds, milliseconds or ISO 8601, and become UTC.

On the hot path a moment is an int, microseconds since 1970 UTC (`_us`); elsewhere it is an aware `datetime`. A text
without an offset is UTC, as LiteLLM's database writes it.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from re import Match
from re import compile as re_compile

from schemas.errors import Rejected

SECOND_US = 1_000_000
#: What `parse_us` reads, for messages.
MOMENT_FORM = "ISO 8601, for example 2026-11-20T23:03:16Z, or a number of seconds or milliseconds since 1970"
HOUR_US = 3600 * SECOND_US
MAX_US = 253_402_300_800 * SECOND_US  # the year 10000
_MAX_NS = MAX_US * 1000
#: The longest text of a moment, characters; a number could have any length.
_LONGEST_TEXT = 64

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re_compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
#: A zone in dead letters, or one that a space separates from the time, as databases write it.
_ZONE = re_compile(r"\s*(?:UTC|GMT|([+-][0-9]{2}(?::?[0-9]{2})?))$")
#: What Python says of a part of a moment, such as `day is out of range for month`.
_OUT_OF_RANGE = re_compile(r"^(year|month|day|hour|minute|second)\b.*(out of range|must be in)")
#: Numbers from these on are milliseconds, microseconds, nanoseconds.
_MS_FROM, _US_FROM, _NS_FROM = 10**11, 10**14, 10**17
#: Recently parsed seconds: calls come in order of time, so most share theirs with another call.
_SECONDS: dict[str, int] = {}
_SECONDS_KEPT = 4096
_ISO_LENGTH = 27


def parse_us(value: float | int | str) -> int:
    """Microseconds since 1970 UTC of a number (s, ms, us or ns) or an ISO 8601 text.

    A number below 1e11 is seconds (until the year 5138), below 1e14 milliseconds, below 1e17 microseconds. A text may
    contain such a number. ISO 8601 may have lower-case letters (RFC 3339, 5.6), a space instead of `T`, and any offset.

    Raises:
        Rejected: `bad_time`: it is no moment between 1970 and 9999.
    """
    if type(value) is float and 0.0 <= value < _MS_FROM:
        return round(value * SECOND_US)
    if type(value) is str:
        if len(value) == _ISO_LENGTH and value[26] == "Z" and value[19] == "." and (parts := value[20:26]).isdecimal():
            # The form of LiteLLM's callbacks, `2026-11-20T23:03:16.518726Z`; mostly its second was seen just before.
            second = _SECONDS.get(value[:19])
            if second is not None or (second := _whole_second(value[:19])) is not None:
                return second + int(parts)
        us = _from_text(value)
    elif isinstance(value, float | int) and not isinstance(value, bool):
        us = _from_number(value)
    else:
        raise Rejected("bad_time", f"expected {MOMENT_FORM}")
    if not 0 <= us < MAX_US:
        raise Rejected("bad_time", "outside 1970..9999")
    return us


def to_datetime(us: int) -> datetime:
    """Microseconds since 1970 UTC to an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=us)


def to_us(moment: datetime) -> int:
    """Convert an aware datetime to microseconds since 1970 UTC. Raises: ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("naive datetime")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * SECOND_US + delta.microseconds


def to_iso(us: int) -> str:
    """Format as `2026-11-20T23:03:16.518726Z`: ISO 8601, UTC, always six decimals."""
    return to_datetime(us).isoformat(timespec="microseconds").replace("+00:00", "Z")


def lago_timestamp(us: int) -> str:
    """Lago's `timestamp`: seconds with milliseconds as a string, the one form that both event stores accept."""
    seconds, rest = divmod(us, SECOND_US)
    return f"{seconds}.{rest // 1000:03d}"


def _from_number(value: float | int) -> int:
    if not 0 <= value < _MAX_NS:  # nor is NaN
        raise Rejected("bad_time", "outside 1970..9999")
    if value < _MS_FROM:
        return round(value * SECOND_US)
    if value < _US_FROM:
        return round(value * 1000)
    if value < _NS_FROM:
        return round(value)
    return int(value) // 1000


def _whole_second(text: str) -> int | None:
    """Microseconds of a second in ISO 8601, UTC, from 1970 on; cached. None where it is none."""
    try:
        second = to_us(datetime.fromisoformat(text + "Z"))
    except (ValueError, OverflowError):
        return None
    if second < 0:
        return None
    if len(_SECONDS) >= _SECONDS_KEPT:
        _SECONDS.clear()
    _SECONDS[text] = second
    return second


def _from_text(text: str) -> int:
    text = text.strip()
    if len(text) > _LONGEST_TEXT or not text.isascii():
        raise Rejected("bad_time", f"expected {MOMENT_FORM}")
    try:
        if _NUMBER.fullmatch(text):
            number = Decimal(text)
            if number >= _MS_FROM:
                return _from_number(int(number) if number < _MAX_NS else _MAX_NS)
            return int((number * SECOND_US).to_integral_value())
        moment = datetime.fromisoformat(_ZONE.sub(_plain_zone, text.upper()))
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return to_us(moment)
    except (ValueError, OverflowError, ArithmeticError) as error:
        why = str(error)
        # Any other error repeats the text. The form is right here, and the calendar has no such day or time.
        absent = f"there is no such moment, {why}: " if _OUT_OF_RANGE.search(why) else ""
        raise Rejected("bad_time", f"{absent}expected {MOMENT_FORM}") from error


def _plain_zone(match: Match[str]) -> str:
    return match[1] or "Z"
