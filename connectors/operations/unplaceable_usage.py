"""Collects held usage that needs a person, because Meterbridge cannot find its subscription by itself."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from schemas.ledger import Window
from schemas.money import ZERO, add, plain
from streams.core.mapping.held_reasons import (
    AMBIGUOUS,
    ENDED,
    FOREIGN_SUBSCRIPTION,
    LATE_PERIOD,
    NO_CHARGE,
    NOT_KEPT,
    UNKNOWN_SUBSCRIPTION,
    WRONG_CURRENCY,
)

REASONS: Final = (
    NO_CHARGE,
    WRONG_CURRENCY,
    AMBIGUOUS,
    UNKNOWN_SUBSCRIPTION,
    FOREIGN_SUBSCRIPTION,
    ENDED,
    LATE_PERIOD,
    NOT_KEPT,
)

#: Dollars by reason and org.
Misdirected = dict[tuple[str, str], Decimal]


def note(misdirected: Misdirected, window: Window) -> None:
    """Add a held window, if its reason is one of `REASONS`."""
    if window.held in REASONS:
        key = window.held, window.org_id or window.customer_id
        misdirected[key] = add(misdirected.get(key, ZERO), window.cost)


def lines(amounts: Mapping[tuple[str, str], Decimal]) -> list[str]:
    """Return a sentence for each reason and org, the highest amount first."""
    ranked = sorted(amounts.items(), key=lambda one: (-one[1], one[0]))
    return [f"{plain(usd)} USD of {org} are held: {reason}" for (reason, org), usd in ranked]
