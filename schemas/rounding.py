"""How amounts are rounded: once, half to even, to `COST_DECIMALS` places of a dollar. Sums are exact (money.py)."""

from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation, Overflow
from typing import Final

COST_DECIMALS = 12
#: The most that it may be: with the decimals of a factor (`schemas/rates.py::FACTOR_PLACES`) an amount has 17 decimals of a
#: dollar, which are the 15 decimals of a cent that Lago keeps.
MOST_COST_DECIMALS = 13
#: For results that may be rounded.
ROUNDING: Final = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, Overflow])


def quantum(places: int = COST_DECIMALS) -> Decimal:
    """Return the smallest amount that is kept, dollars: `Decimal("1E-12")` for 12 places."""
    return Decimal(1).scaleb(-places)


def quantise(cost: Decimal, unit: Decimal) -> Decimal:
    """Round `cost` dollars to a multiple of `unit`, half to even. It is the only rounding of a call's cost.

    It removes the binary noise of LiteLLM's numbers (`9.149999999999999e-06`).
    """
    return cost.quantize(unit, None, ROUNDING)
