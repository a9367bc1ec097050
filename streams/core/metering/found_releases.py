"""Finds the held parts that are billed by events which only Lago has. Such an event names one part, and contains the
sums of all parts that were released into it. Pure.
"""

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from decimal import Decimal, localcontext
from itertools import chain, combinations
from operator import attrgetter
from typing import Final, NamedTuple

from schemas.moments import SECOND_US
from schemas.money import EXACT, ZERO

#: A held window is one second long, and a merged window a quarter of an hour. A call of it may end this much earlier
#: than its event's window.
STRETCH_US: Final = 900 * SECOND_US
#: Up to this number of parts, all combinations are tried; of more parts, only all of them together.
_MOST_TRIED: Final = 12
#: The maximum number of looks at parts for the events of one customer and model; a part counts again in each set. After
#: that a person has to decide. This is at most some seconds of CPU time.
MOST_LOOKS: Final = 2_000_000


_LAST_END: Final = attrgetter("last_end_us")


class Sums(NamedTuple):
    """The sums of calls; dollars."""

    calls: int = 0
    usd: Decimal = ZERO
    tokens_input: int = 0
    tokens_output: int = 0


class HeldPart(NamedTuple):
    """A held part of the event's customer, model and provider; the last end of its calls, microseconds since 1970 UTC."""

    part: str
    sums: Sums
    last_end_us: int


class Untold(NamedTuple):
    """The sums of an event with the window `[start_us, end_us)` beyond its known calls; microseconds since 1970 UTC."""

    sums: Sums
    start_us: int
    end_us: int


def fitting(held: Iterable[HeldPart], start_us: int, end_us: int) -> list[HeldPart]:
    """Return the parts that can have been released into an event whose window is `[start_us, end_us)`, microseconds
    since 1970 UTC.
    """
    from_us, until_us = _reach(start_us, end_us)
    return [part for part in held if from_us <= part.last_end_us < until_us]


def _reach(start_us: int, end_us: int) -> tuple[int, int]:
    return start_us - STRETCH_US, max(end_us, start_us + 1)


def shared_out(events: Sequence[Untold], held: Sequence[HeldPart]) -> list[list[HeldPart] | None] | None:
    """Return the parts that were released into each event, of one customer, model and provider; no part is in two.

    Parts move whole, and calls, dollars and tokens must all be equal. If several choices for all events have equal
    sums, each choice leaves the same sum to be billed, so the customer pays the same.

    The work is bounded for all events and parts: at most `MOST_LOOKS` looks at parts in total.

    Returns:
        For each event its parts; None = no parts have its sums, even if all parts could be used for this event. None
        instead of the list: each event alone has a choice, but no choice was found for all events together, or not
        within the bound.
    """
    try:
        return _shared_out(events, held, _Looks())
    except _TooMany:
        return None


class _TooMany(Exception):
    """The looks are used up."""


class _Looks:
    """The common limit of looks of all choices for one customer and model."""

    def __init__(self) -> None:
        self.left = MOST_LOOKS

    def spend(self, parts: int) -> None:
        """Count looks at this many parts. Raises: _TooMany."""
        self.left -= parts
        if self.left < 0:
            raise _TooMany


def _shared_out(
    events: Sequence[Untold], held: Sequence[HeldPart], looks: _Looks
) -> list[list[HeldPart] | None] | None:
    # The earliest parts are assigned to the earliest events, because later events reach less far back.
    held = sorted(held, key=lambda part: (part.last_end_us, part.part))
    able = [number for number, event in enumerate(events) if next(_choices(held, (), event, looks), None) is not None]
    able.sort(key=lambda number: events[number].end_us)
    told: list[list[HeldPart] | None] = [None] * len(events)
    taken: set[str] = set()
    left = [_choices(held, taken, events[number], looks) for number in able[:1]]
    while left:
        number = able[len(left) - 1]
        taken.difference_update(part.part for part in told[number] or ())
        told[number] = choice = next(left[-1], None)
        if choice is None:
            left.pop()
            continue
        taken.update(part.part for part in choice)
        if len(left) == len(able):
            return told
        left.append(_choices(held, taken, events[able[len(left)]], looks))
    return None if able else told


def _choices(held: Sequence[HeldPart], taken: Container[str], event: Untold, looks: _Looks) -> Iterator[list[HeldPart]]:
    """Yield the choices that add up to what the event bills: of the parts that ended in its window, then of all that
    may be in it.

    Args:
        held: by their ends.
        taken: parts of other events, as they are when the first choice is made.

    Raises:
        _TooMany: `looks`, which all choices share, is used up.
    """
    first, end = (bisect_left(held, at_us, key=_LAST_END) for at_us in _reach(event.start_us, event.end_us))
    looks.spend(end - first)
    fit = [part for part in held[first:end] if part.part not in taken]
    within = [part for part in fit if part.last_end_us >= event.start_us]
    for parts in (within, fit) if len(within) < len(fit) else (fit,):
        for chosen in _subsets(parts):
            looks.spend(len(chosen))
            if _add_up(chosen, event.sums):
                yield list(chosen)


def _subsets(held: Sequence[HeldPart]) -> Iterator[tuple[HeldPart, ...]]:
    few = range(len(held) - 1, 0, -1) if len(held) <= _MOST_TRIED else ()
    return chain((tuple(held),) if held else (), *(combinations(held, size) for size in few))


def _add_up(parts: Sequence[HeldPart], sums: Sums) -> bool:
    if sum(part.sums.calls for part in parts) != sums.calls:
        return False
    total = Sums()
    for part in parts:
        total = _plus(total, part.sums, 1)
    return total == sums


def less(sums: Sums, known: Sums) -> Sums:
    """Return `sums` minus `known`; exact."""
    return _plus(sums, known, -1)


def _plus(left: Sums, right: Sums, sign: int) -> Sums:
    with localcontext(EXACT):
        usd = left.usd + sign * right.usd
    return Sums(
        left.calls + sign * right.calls,
        usd,
        left.tokens_input + sign * right.tokens_input,
        left.tokens_output + sign * right.tokens_output,
    )
