"""Which held parts an event bills that only Lago has: it names one part, and sums up all that were released into it. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, localcontext
from itertools import chain, combinations
from typing import Final, NamedTuple

from schemas.moments import SECOND_US
from schemas.money import EXACT, ZERO

#: A held window is one second long, and a merged one a quarter of an hour: so much earlier than its event's window a call of it may end.
_STRETCH_US: Final = 900 * SECOND_US
#: So many parts are tried in each combination; of more only all of them.
_MOST_TRIED: Final = 12


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


def fitting(held: Iterable[HeldPart], start_us: int, end_us: int) -> list[HeldPart]:
    """The parts that can have been released into an event whose window is `[start_us, end_us)`, microseconds since 1970 UTC."""
    return [part for part in held if start_us - _STRETCH_US <= part.last_end_us < max(end_us, start_us + 1)]


def released(held: Sequence[HeldPart], untold: Sums) -> list[HeldPart] | None:
    """The parts that add up to `untold`, what the event bills beyond the calls that are known to be in it; None = none do.

    Parts move whole, and calls, dollars and tokens must all be equal. Where two choices add up alike, either leaves the same sum to be
    billed, so the customer pays the same.
    """
    for chosen in _choices(held):
        if _sum(part.sums for part in chosen) == untold:
            return list(chosen)
    return None


def _choices(held: Sequence[HeldPart]) -> Iterator[tuple[HeldPart, ...]]:
    few = range(len(held) - 1, 0, -1) if len(held) <= _MOST_TRIED else ()
    return chain((tuple(held),) if held else (), *(combinations(held, size) for size in few))


def _sum(parts: Iterable[Sums]) -> Sums:
    total = Sums()
    for part in parts:
        total = _plus(total, part, 1)
    return total


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
