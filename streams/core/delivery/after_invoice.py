"""Which events reached Lago after it had counted the invoice of an end, by what that invoice says; pure.

An invoice tells how many events it counted, and their rounded sum, but not which. Lago stores the invoice empty and
counts later, so the moment at which the invoice was made does not tell it either (docs/lago-behaviour.md, 4.1).
What is safe does not depend on clocks: whichever events Lago counted, its fee and what is called late are together
what all events bill, to half a cent. The order in which Lago stored them only says which ones they are.
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import NamedTuple

from schemas.money import ZERO, add

_TO_CENTS = Context(prec=60, rounding=ROUND_HALF_UP)


class Stored(NamedTuple):
    """An event as Lago has it.

    Fields:
        created_us: when Lago stored it, as Lago tells: to the second; microseconds since 1970 UTC.
        cents: what it bills.
    """

    transaction_id: str
    created_us: int
    cents: Decimal


class Verdict(NamedTuple):
    """Ids of events that are on no invoice, and of those that may be on it or not; both empty: all are on it."""

    late: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def overtaken(stored: Sequence[Stored], events: int, cents: int, since_us: int) -> Verdict:
    """Which events of the last billing period of a subscription its last invoice did not count.

    Args:
        stored: every event that Lago has of the subscription and the metric, with a moment within the fee's bounds.
        events, cents: of the only fee of the metric on that invoice; 0, 0 where the invoice has none.
        since_us: when the subscription ended. What Lago stored before, its invoice must have counted.
    """
    ordered = sorted(stored, key=lambda one: (one.created_us, one.transaction_id))
    counted, rest = ordered[:events], ordered[events:]
    adds_up = len(counted) == events and _rounded(counted) == cents
    if adds_up and not rest:
        return Verdict()
    after_the_end = all(one.created_us >= since_us for one in rest)
    told_apart = not counted or not rest or counted[-1].created_us < rest[0].created_us
    if adds_up and after_the_end and told_apart:
        return Verdict(late=_ids(rest))
    return Verdict(unclear=_ids([one for one in ordered if one.created_us >= since_us] or ordered))


def _rounded(counted: Sequence[Stored]) -> int:
    """As Lago rounds a fee: once, half up."""
    total = ZERO
    for one in counted:
        total = add(total, one.cents)
    return int(total.quantize(Decimal(1), context=_TO_CENTS))


def _ids(events: Sequence[Stored]) -> tuple[str, ...]:
    return tuple(one.transaction_id for one in events)
