"""Money is Decimal from the text of a number to the text of a number.

The meter rounds a cost once (rounding.py). From there every sum is exact, and equals the sum that Lago computes from
our strings: Lago keeps 15 places of a cent, `decimal(40,15)` (docs/lago-behaviour.md).
"""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from functools import reduce
from re import compile as re_compile

from schemas.errors import Rejected
from schemas.rounding import ROUNDING

ZERO = Decimal(0)
#: What `parse_amount` reads, for messages.
AMOUNT_FORM = "a plain decimal number, for example 0.25"

#: A call above this many dollars is an error of its sender.
ABSURD_COST = Decimal(1_000_000)

#: The context for sums of money: a result that would need rounding raises instead.
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[Inexact, InvalidOperation, Overflow])

_HUNDRED = Decimal(100)
#: Python's `Decimal` also accepts `1_000`, ` 1 `, `NaN` and the digits of every script.
_WRITTEN = re_compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def parse_amount(text: str) -> Decimal:
    """Parse an external text as a number: ASCII digits with an optional fraction and exponent, and no other characters.

    Raises:
        Rejected: `bad_cost`: it is no such number, or no Decimal can hold it.
    """
    if _WRITTEN.fullmatch(text) is None:
        raise Rejected("bad_cost", f"expected {AMOUNT_FORM}")
    try:
        return Decimal(text)
    except DecimalException as error:
        raise Rejected("bad_cost", f"expected {AMOUNT_FORM}") from error


def check_cost(cost: Decimal) -> None:
    """Refuse a value that is no amount of money.

    Raises:
        Rejected: `bad_cost` for NaN and infinities, `negative_cost`, `absurd_cost` above `ABSURD_COST` dollars. Its
            detail has the number, in at most 30 characters. The record goes to the rejected topic.
    """
    if cost.is_finite() and ZERO <= cost <= ABSURD_COST:
        return
    if not cost.is_finite():
        raise Rejected("bad_cost", "not a finite number")
    # Rounded to 12 digits, with an exponent where it is long: written out, 1e999999999 would fill the memory.
    if cost < 0:
        raise Rejected("negative_cost", f"the cost is {cost:.12g} USD, below 0")
    raise Rejected("absurd_cost", f"the cost is {cost:.12g} USD, the limit is {ABSURD_COST} USD")


def add(a: Decimal, b: Decimal) -> Decimal:
    """Return the exact sum; raises `decimal.Inexact` where it needs more than 60 digits."""
    return EXACT.add(a, b)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum; 0 for no amounts."""
    return reduce(add, amounts, ZERO)


def cents_text(dollars: Decimal) -> str:
    """Convert dollars to Lago's `precise_total_amount_cents`: cents as a plain decimal string.

    The result has no exponent, because Lago silently skips a value of a sum metric such as `1e-05`.
    """
    return plain(EXACT.multiply(dollars, _HUNDRED))


def from_cents(cents: Decimal) -> Decimal:
    """Convert cents to dollars. More than 60 digits are rounded, because a cost is later rounded to `COST_DECIMALS` in
    any case.
    """
    return ROUNDING.divide(cents, _HUNDRED)


def plain(amount: Decimal) -> str:
    """Format a decimal as plain digits without exponent or trailing zeros: `0.00014500` -> `0.000145`."""
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text or "0"
