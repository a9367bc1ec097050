"""Checks the numbers among an event's properties: whether Lago can hold them, and whether they are negative.

Only Lago knows which property a metric reads, so every property that is a number is checked, even if it is a text. Lago
sums texts that match `^-?\\d+(\\.\\d+)?$` (`postgres_store.rb#numeric_condition`). The bounds are those of Lago's
widest column for an event's number, `decimal(40,15)` (`precise_total_amount_cents`): 25 digits before the point, 15
behind it.
"""

from collections.abc import Mapping
from decimal import Decimal, DecimalException
from re import compile as re_compile
from typing import Final

from schemas.errors import Rejected

#: The largest number of significant digits, of digits before the point, and of digits after the point.
MAX_DIGITS, MAX_WHOLE, MAX_PLACES = 40, 25, 15
#: Reason of a refusal.
OUT_OF_RANGE: Final = "number_out_of_range"
#: Matches more texts than Lago's own pattern, because another event store of Lago may read more texts as numbers.
_NUMBER: Final = re_compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")


def check_numbers(properties: Mapping[str, str]) -> None:
    """Refuse a number that Lago cannot hold. With such a number, all responses of Lago about the org would be errors.

    Raises:
        Rejected: `number_out_of_range`: 10^25 or more, closer to 0 than 10^-15, or more than 40 digits.
    """
    for name, text in properties.items():
        if _NUMBER.fullmatch(text) is not None and not _fits(text):
            detail = (
                f"{name} has more than {MAX_WHOLE} digits before the point, is nearer to 0 than 15 places say, or has"
            )
            raise Rejected(
                OUT_OF_RANGE, f"{detail} more than {MAX_DIGITS} digits: Lago's decimal(40,15) cannot hold it"
            )


def takes_back(properties: Mapping[str, str]) -> str:
    """Return the name of the first negative property, which would reduce a bill; `""` = there is none."""
    for name, text in properties.items():
        if "-" in text and _NUMBER.fullmatch(text) is not None and _number(text) < 0:
            return name
    return ""


def numbers_of(properties: Mapping[str, str]) -> dict[str, str]:
    """Return the properties that are numbers."""
    return {name: text for name, text in properties.items() if _NUMBER.fullmatch(text) is not None}


def _fits(text: str) -> bool:
    number = _number(text)
    if not number.is_finite():
        return False
    if number == 0:
        return len(text) <= MAX_DIGITS + MAX_PLACES
    return len(number.as_tuple().digits) <= MAX_DIGITS and -MAX_PLACES <= number.adjusted() < MAX_WHOLE


def _number(text: str) -> Decimal:
    try:
        return Decimal(text.strip())
    except DecimalException:  # an exponent of more digits than Decimal has
        return Decimal("-Infinity" if text.lstrip().startswith("-") else "Infinity")
