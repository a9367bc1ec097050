"""Converts scalars as Lago does: texts, timestamps and amounts, also invalid ones.

Source: `app/services/events/create_service.rb` (timestamp), the column type `decimal(40,15)` of `events` (amount) and
the permitted scalars of Rails' strong parameters in `app/controllers/api/v1/events_controller.rb`.
"""

from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal
from re import ASCII
from re import compile as re_compile

from schemas.moments import SECOND_US
from schemas.money import plain

_LOOSE = r"[+-]?(?:\d+(?:_\d+)*)?(?:\.\d+)?(?:(?<=\d)[eEdD][+-]?\d{1,6})?"
_SECONDS = re_compile(r"(\d{1,12})(?:\.(\d{1,6}))?", ASCII)
_NUMBER = re_compile(_LOOSE, ASCII)
_NOT_FINITE = frozenset({"NaN", "Infinity", "+Infinity", "-Infinity"})
_CENTS = re_compile(r"\d{1,24}(?:\.\d{1,15})?", ASCII)
_LEADING_NUMBER = re_compile(rf"\s*({_LOOSE})", ASCII)

_PLACES = Decimal(1).scaleb(-15)
_WIDE = Context(prec=120, rounding=ROUND_HALF_UP)
_FLOAT_DIGITS = Context(prec=16, rounding=ROUND_HALF_UP)
_ABSURD = 60


class InvalidTimestamp(Exception):
    """The value is not a number: Lago answers 422 `invalid_format`."""


class Unstorable(Exception):
    """No column or clock can hold the value: Lago answers 500."""


def text(value: object) -> str | None:
    """Return a permitted scalar in the form that a string column keeps; objects and arrays become None."""
    if value is None or type(value) is str:
        return value
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, int | float):
        return repr(value)
    return None


def blank(value: str | None) -> bool:
    """Return whether it is absent, empty or white space only."""
    return value is None or not value.strip()


def timestamp_us(value: object, now_us: int) -> int:
    """Return seconds, as a number or a text, to microseconds; `now_us` when absent.

    Lago does not recognise milliseconds: they become the year 57147 and are never billed.

    Raises:
        InvalidTimestamp: ISO 8601, empty, a boolean, or anything else that is not a number.
        Unstorable: NaN, infinite, or beyond any clock.
    """
    if type(value) is str and (match := _SECONDS.fullmatch(value)):
        return int(match[1]) * SECOND_US + int((match[2] or "").ljust(6, "0"))
    if value is None or value is False or isinstance(value, list | dict):
        return now_us
    digits = (text(value) or "").strip()
    if digits in _NOT_FINITE:
        raise Unstorable
    number = _decimal(digits) if _NUMBER.fullmatch(digits) else None
    if number is None:
        raise InvalidTimestamp
    if number.adjusted() > _ABSURD:
        raise Unstorable
    return int(_WIDE.multiply(number, SECOND_US).to_integral_value(ROUND_FLOOR))


def cents(value: object) -> str | None:
    """Return an amount in the form that `decimal(40,15)` keeps, as plain decimal text. Lago converts invalid text
    instead of refusing it.

    `"abc"` -> 0, `"1,234.56"` -> 1, `"12abc"` -> 12, blank -> None; rounded half up at the 15th decimal.

    Raises:
        Unstorable: more digits than any column holds.
    """
    if isinstance(value, str):
        if _CENTS.fullmatch(value):
            return plain(Decimal(value))
        if blank(value):
            return None
        leading = _LEADING_NUMBER.match(value)
        number = _decimal(leading[1]) if leading else None
    elif isinstance(value, float):
        number = _FLOAT_DIGITS.create_decimal(repr(value))
    elif isinstance(value, int):
        number = Decimal(int(value))
    else:
        return None
    if not number:
        return "0"
    if number.adjusted() > _ABSURD:
        raise Unstorable
    return plain(number.quantize(_PLACES, context=_WIDE))


def ruby_decimal(number: Decimal) -> str:
    """Lago's form of a decimal: plain digits, always with a fraction (`150.0`)."""
    digits = plain(number)
    return digits if "." in digits else f"{digits}.0"


def _decimal(digits: str) -> Decimal | None:
    if not any(map(str.isdigit, digits)):
        return None
    return Decimal(digits.replace("_", "").replace("d", "e").replace("D", "e"))
