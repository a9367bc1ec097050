"""A price becomes a whole number of the smallest unit of its currency, or is refused; it is never rounded."""

from decimal import Decimal

import pytest

from schemas.errors import Rejected
from streams.core.payments.currency_units import smallest_units


@pytest.mark.parametrize(
    ("price", "currency", "units"),
    [("10", "usd", 1000), ("12.34", "USD", 1234), ("500", "jpy", 500), ("1.234", "kwd", 1234), ("0.01", "eur", 1)],
)
def test_a_price_in_the_smallest_unit(price: str, currency: str, units: int) -> None:
    assert smallest_units(Decimal(price), currency) == units


@pytest.mark.parametrize(
    ("price", "currency"),
    [
        ("0", "usd"),
        ("-1", "usd"),
        ("0.001", "usd"),
        ("0.5", "jpy"),
        ("1E+30", "usd"),
        ("1E+999999", "usd"),
        ("NaN", "usd"),
        ("Infinity", "usd"),
    ],
)
def test_an_amount_that_cannot_be_paid_is_refused(price: str, currency: str) -> None:
    with pytest.raises(Rejected, match="price_not_payable"):
        smallest_units(Decimal(price), currency)
