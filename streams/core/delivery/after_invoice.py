"""Which events reached Lago after it had counted the invoice of an end, by what that invoice says; pure.

An invoice shows how many events it counted, and their rounded sum, but not which. Lago stores the invoice empty and
counts later, so the moment at which the invoice was made does not show it either (docs/lago-behaviour.md, 4.1).
It counts at one moment, and tells in whole seconds when it stored each event: on the invoice is what it stored in earlier
seconds, and a part of what it stored in that second. Count and sum say which second it was, and often which part.
What is safe does not depend on clocks: whichever events Lago counted, its fee and what is called late are together
never more than what all events bill, and with what is unclear never less, to half a cent, as long as it counted what
it had stored before the end and is not asked about.
"""

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from itertools import combinations
from math import comb
from typing import Final, NamedTuple

from schemas.money import ZERO, add

#: With more additions than these it is not tried which events of one second add up to a fee: all of them are unclear.
MOST_STEPS: Final = 5_000
_TO_CENTS = Context(prec=60, rounding=ROUND_HALF_UP)


class CountableEvent(NamedTuple):
    """An event as Lago has it.

    Fields:
        created_us: when Lago stored it, as Lago reports: to the second; microseconds since 1970 UTC.
        cents: what it bills.
    """

    transaction_id: str
    created_us: int
    cents: Decimal


class Earlier(NamedTuple):
    """What Lago stored before the end, which its last invoice must have counted: how many events, and their cents.

    Fields:
        ids: of those that are asked about.
    """

    events: int = 0
    cents: Decimal = ZERO
    ids: tuple[str, ...] = ()


class InvoiceMatch(NamedTuple):
    """Ids of events that are on no invoice, and of those that may be on it or not; all others are on it."""

    late: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def overtaken(earlier: Earlier, after: Sequence[CountableEvent], events: int, cents: int) -> InvoiceMatch:
    """Which events of the last billing period of a subscription its last invoice did not count.

    Args:
        earlier, after: every event that Lago has of the subscription and the metric, with a moment within the fee's
            bounds: those that it stored before the second of the end, and the others.
        events, cents: of the only fee of the metric on that invoice; 0, 0 where the invoice has none.

    Returns:
        late: events that are in none of the sets that match the invoice (that is, sets that Lago may have counted, at one
        moment, to get that fee). unclear: events that are in some of these sets, but not in all. If no set matches, all are
        unclear: the events after the end, and those before it that are asked about.
    """
    left = events - earlier.events
    ordered = sorted(after, key=lambda one: (one.created_us, one.transaction_id))
    if 0 <= left <= len(ordered):
        border_us = ordered[left].created_us if left < len(ordered) else None
        counted = [event for event in ordered if border_us is None or event.created_us < border_us]
        then = [event for event in ordered if event.created_us == border_us]
        later = ordered[len(counted) + len(then) :]
        never, unclear = _compared_with_fee(then, left - len(counted), _sum(counted, earlier.cents), cents)
        if never is not None:
            return InvoiceMatch(_ids([*never, *later]), _ids(unclear))
    return InvoiceMatch(unclear=(*earlier.ids, *_ids(ordered)))


def _compared_with_fee(
    then: Sequence[CountableEvent], number: int, before: Decimal, cents: int
) -> tuple[Sequence[CountableEvent] | None, Sequence[CountableEvent]]:
    """Try all subsets of `number` events stored in one second, and keep those that add up with `before` to the fee.

    Returns:
        The events that are in no such subset, and those that are in some but not in all; `(None, ...)` if there is no such
        subset. Subsets are drawn by what they contain or by what they leave out, whichever is smaller.
    """
    drawn = min(number, len(then) - number)
    if _steps(len(then), drawn) > MOST_STEPS:
        by_cents = sorted(then, key=lambda one: one.cents)
        least, most = _sum(by_cents[:number], before), _sum(by_cents[len(then) - number :], before)
        return ([] if _rounded(least) <= cents <= _rounded(most) else None), then
    leaves_out, whole = drawn < number, _sum(then, before)
    some, every = set[CountableEvent](), set(then)
    fits = False
    for draw in combinations(then, drawn):
        total = add(whole, _sum(draw).copy_negate()) if leaves_out else _sum(draw, before)
        if _rounded(total) == cents:
            fits = True
            some.update(draw)
            every.intersection_update(draw)
    if not fits:
        return None, then
    never = every if leaves_out else set(then) - some
    return [one for one in then if one in never], [one for one in then if one in some - every]


def _steps(number: int, drawn: int) -> int:
    """How many additions all draws of so many take; more than `MOST_STEPS` where working that out would take long."""
    if drawn > 1 and number > MOST_STEPS:
        return MOST_STEPS + 1
    return comb(number, drawn) * max(1, drawn)


def _sum(events: Iterable[CountableEvent], total: Decimal = ZERO) -> Decimal:
    for event in events:
        total = add(total, event.cents)
    return total


def _rounded(cents: Decimal) -> int:
    """As Lago rounds a fee: once, half up."""
    return int(cents.quantize(Decimal(1), context=_TO_CENTS))


def _ids(events: Iterable[CountableEvent]) -> tuple[str, ...]:
    return tuple(event.transaction_id for event in events)
