"""Converts amounts of money to the form of payment providers: whole numbers of the smallest unit of a currency.

Source: https://docs.stripe.com/currencies (zero-decimal and three-decimal currencies).
"""

from decimal import Decimal, DecimalException
from typing import Final

from schemas.errors import Rejected
from schemas.money import EXACT

_WITHOUT_DECIMALS: Final = frozenset(
    ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf")
)
_WITH_THREE: Final = frozenset(("bhd", "jod", "kwd", "omr", "tnd"))
#: The largest number of digits of an amount that the payment provider accepts, in some currencies only.
_MOST: Final = 10**12


def decimals_of(currency: str) -> int:
    """Return the decimal places of a currency at the payment provider, by its ISO code in any case."""
    code = currency.lower()
    if code in _WITHOUT_DECIMALS:
        return 0
    return 3 if code in _WITH_THREE else 2


def smallest_units(price: Decimal, currency: str) -> int:
    """Return the price in the smallest unit of its currency: `12.34` USD is 1234.

    Raises:
        Rejected: `price_not_payable`: the price is not above 0, too large, or no whole number of the smallest unit.
    """
    try:
        units = EXACT.scaleb(price, decimals_of(currency))
        whole = int(units)
        payable = 0 < whole < _MOST and whole == units
    except (DecimalException, ValueError, OverflowError):
        payable = False
    if not payable:
        raise Rejected("price_not_payable", "the price of the package cannot be paid in its currency")
    return whole
