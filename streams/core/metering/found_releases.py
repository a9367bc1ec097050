"""Which held parts the events bill that only Lago has: each names one part, and sums up all that were released into it. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, localcontext
from itertools import chain, combinations
from typing import Final, NamedTuple

from schemas.moments import SECOND_US
from schemas.money import EXACT, ZERO

#: A held window is one second long, and a merged one a quarter of an hour: so much earlier than its event's window a call of it may end.
STRETCH_US: Final = 900 * SECOND_US
#: So many parts are tried in each combination; of more only all of them.
_MOST_TRIED: Final = 12
#: So many choices are tried for the events of one customer and model before a person has to decide.
_MOST_STEPS: Final = 2_000


class Sums(NamedTuple):
    """What calls add up to; dollars."""

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
    """What an event with the window `[start_us, end_us)` bills beyond the calls that are known to be in it; microseconds since 1970 UTC."""

    sums: Sums
    start_us: int
    end_us: int


def fitting(held: Iterable[HeldPart], start_us: int, end_us: int) -> list[HeldPart]:
    """The parts that can have been released into an event whose window is `[start_us, end_us)`, microseconds since 1970 UTC."""
    return [part for part in held if start_us - STRETCH_US <= part.last_end_us < max(end_us, start_us + 1)]


def shared_out(events: Sequence[Untold], held: Sequence[HeldPart]) -> list[list[HeldPart] | None] | None:
    """The parts that were released into each event, of one customer, model and provider; no part is in two.

    Parts move whole, and calls, dollars and tokens must all be equal. Where several choices for all events add up alike, any of them leaves
    the same sum to be billed, so the customer pays the same.

    Returns:
        For each event its parts; None = no parts add up to what it bills, even if it had all to itself. None instead of the list: there is
        a choice for each event alone, and none was found for all of them together.
    """
    # The earliest parts for the earliest events: later events reach back less far.
    held = sorted(held, key=lambda part: (part.last_end_us, part.part))
    able = [number for number, event in enumerate(events) if next(_choices(held, (), event), None) is not None]
    able.sort(key=lambda number: events[number].end_us)
    told: list[list[HeldPart] | None] = [None] * len(events)
    taken: set[str] = set()
    left = [_choices(held, taken, events[number]) for number in able[:1]]
    for _ in range(_MOST_STEPS):
        if not left:
            break
        number = able[len(left) - 1]
        taken.difference_update(part.part for part in told[number] or ())
        told[number] = choice = next(left[-1], None)
        if choice is None:
            left.pop()
            continue
        taken.update(part.part for part in choice)
        if len(left) == len(able):
            return told
        left.append(_choices(held, taken, events[able[len(left)]]))
    return None if able else told


def _choices(held: Sequence[HeldPart], taken: Iterable[str], event: Untold) -> Iterator[list[HeldPart]]:
    """The choices that add up to what the event bills: of the parts that ended in its window, then of all that may be in it."""
    others = set(taken)
    fit = [part for part in fitting(held, event.start_us, event.end_us) if part.part not in others]
    within = [part for part in fit if part.last_end_us >= event.start_us]
    for parts in (within, fit) if len(within) < len(fit) else (fit,):
        yield from (list(chosen) for chosen in _subsets(parts) if _add_up(chosen, event.sums))


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
    """What is left of `sums` without `known`; exact."""
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
