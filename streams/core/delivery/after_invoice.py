"""Finds out from the last invoice of a subscription which events reached Lago after it had counted; pure.

An invoice shows the number of counted events and their rounded sum, but not the events. Lago stores the invoice first
and counts later, so the time of the invoice does not help (docs/lago-behaviour.md, 4.1). Lago counts at one moment, and
reports in whole seconds when it stored each event. So the invoice contains the events of all earlier seconds, and some
events of the second in which it counted. Number and sum show which second it was, and often which events.

The bounds of the result do not depend on clocks. Lago's fee plus the late events never exceed the amount of all events.
With the unclear events added, they are never below it, to half a cent. This assumes that Lago counted the events that
it stored before the end and that the caller does not ask about.
"""

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from itertools import combinations
from math import comb
from typing import Final, NamedTuple

from schemas.money import ZERO, add

#: The most additions to find the events of one second that add up to a fee. If more are needed, all of them are
#: unclear.
MOST_STEPS: Final = 5_000
_TO_CENTS = Context(prec=60, rounding=ROUND_HALF_UP)


class CountableEvent(NamedTuple):
    """An event as Lago has it.

    Fields:
        created_us: when Lago stored it, as Lago reports it to the second, microseconds since 1970 UTC.
        cents: the amount of the event.
    """

    transaction_id: str
    created_us: int
    cents: Decimal


class Earlier(NamedTuple):
    """Number and cents of the events that Lago stored before the end. The last invoice must have counted them.

    Fields:
        ids: ids of the events that the caller asks about.
    """

    events: int = 0
    cents: Decimal = ZERO
    ids: tuple[str, ...] = ()


class InvoiceMatch(NamedTuple):
    """Ids of events that are not on the invoice, and of events that may or may not be on it. All others are on it."""

    late: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def overtaken(earlier: Earlier, after: Sequence[CountableEvent], events: int, cents: int) -> InvoiceMatch:
    """Find the events of the last billing period of a subscription that its last invoice did not count.

    Args:
        earlier, after: all events of the subscription and the metric in Lago with a timestamp within the fee's bounds:
            those that Lago stored before the second of the end, and the others.
        events, cents: number and amount in the only fee of the metric on that invoice; 0, 0 if the invoice has none.

    Returns:
        late: events that are in no set that matches the invoice. A set matches if Lago may have counted it at one
            moment to get that fee.
        unclear: events that are in some of these sets, but not in all. If no set matches, all are unclear: the events
            after the end, and the requested ones before it.
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
    """Return how many additions are needed for all subsets of this size; more than `MOST_STEPS` if the computation
    would take long.
    """
    if drawn > 1 and number > MOST_STEPS:
        return MOST_STEPS + 1
    return comb(number, drawn) * max(1, drawn)


def _sum(events: Iterable[CountableEvent], total: Decimal = ZERO) -> Decimal:
    for event in events:
        total = add(total, event.cents)
    return total


def _rounded(cents: Decimal) -> int:
    """Round like Lago rounds a fee: once, half up."""
    return int(cents.quantize(Decimal(1), context=_TO_CENTS))


def _ids(events: Iterable[CountableEvent]) -> tuple[str, ...]:
    return tuple(event.transaction_id for event in events)
