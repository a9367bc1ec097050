"""How the models round money: every rounding rule is here. Imports nothing of the product."""

from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal

#: Enough digits for everything that a model adds, multiplies or divides.
EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)


def cost_of_call(usd: Decimal, decimals: int) -> Decimal:
    """A call's dollars, rounded once to `COST_DECIMALS` places: half to even (docs/owed.md)."""
    return usd.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_EVEN, EXACT)


def in_cents(usd: Decimal) -> Decimal:
    """Dollars as Lago's whole cents: half up."""
    return EXACT.multiply(usd, Decimal(100)).quantize(Decimal(1), ROUND_HALF_UP, EXACT)
