"""Held parts count as released only if they are exactly what an event bills beyond the calls known to be in it."""

from collections import Counter
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.moments import SECOND_US
from streams.core.metering import found_releases
from streams.core.metering.found_releases import HeldPart, Sums, Untold, fitting, less, shared_out

START, END = 1_000 * 60 * SECOND_US, 1_001 * 60 * SECOND_US


def part(name: str, calls: int, usd: str, at_us: int = START) -> HeldPart:
    return HeldPart(name, Sums(calls, Decimal(usd), calls * 7, calls), at_us)


def released(held: list[HeldPart], sums: Sums) -> list[HeldPart] | None:
    """The parts of one event, in a group of its own."""
    found = shared_out([Untold(sums, START, END)], held)
    assert found is not None, "one event does not dispute its parts"
    return found[0]


HELD = [part("1", 1, "0.01"), part("2", 2, "0.05"), part("3", 1, "0.02")]


@pytest.mark.parametrize(
    ("untold", "names"),
    [
        (Sums(4, Decimal("0.08"), 28, 4), ["1", "2", "3"]),
        (Sums(3, Decimal("0.06"), 21, 3), ["1", "2"]),
        (Sums(1, Decimal("0.02"), 7, 1), ["3"]),
        (Sums(1, Decimal("0.010000000001"), 7, 1), None),
        (Sums(1, Decimal("0.01"), 8, 1), None),
        (Sums(1, Decimal("0.01"), 7, 2), None),
        (Sums(2, Decimal("0.01"), 7, 1), None),
        (Sums(5, Decimal("0.09"), 35, 5), None),
    ],
)
def test_parts_are_taken_only_if_calls_dollars_and_tokens_are_all_equal(untold: Sums, names: list[str] | None) -> None:
    found = released(HELD, untold)
    assert (found and sorted(one.part for one in found)) == names


def test_an_event_without_a_held_part_releases_none() -> None:
    assert released([], Sums(1, Decimal(1))) is None


@given(st.lists(st.tuples(st.integers(1, 9), st.decimals(0, 9, places=6)), min_size=1, max_size=9), st.data())
def test_released_parts_are_found_or_others_with_the_same_sum(
    sums: list[tuple[int, Decimal]], data: st.DataObject
) -> None:
    """So the remaining amount is the same for each choice."""
    held = [HeldPart(str(n), Sums(calls, usd, calls, calls), START) for n, (calls, usd) in enumerate(sums)]
    truly = data.draw(st.lists(st.sampled_from(held), min_size=1, unique=True))
    untold = Sums()
    for one in truly:
        untold = less(untold, less(Sums(), one.sums))
    found = released(held, untold)
    assert found is not None
    for one in found:
        untold = less(untold, one.sums)
    assert untold == Sums()


def test_many_parts_are_taken_together_or_not_at_all() -> None:
    """Otherwise every combination of thousands of parts would be tried."""
    many = [part(str(n), 1, "0.01") for n in range(5_000)]
    whole = Sums(5_000, Decimal(50), 35_000, 5_000)
    assert len(released(many, whole) or ()) == len(many)
    assert released(many, less(whole, many[0].sums)) is None


@pytest.mark.parametrize(
    ("at_us", "fits"),
    [
        (START, True),
        (END - 1, True),
        (END, False),
        (START - 900 * SECOND_US, True),
        (START - 900 * SECOND_US - 1, False),
    ],
)
def test_a_part_that_ended_outside_the_window_is_in_none_of_its_events(at_us: int, fits: bool) -> None:
    assert bool(fitting([part("1", 1, "0.01", at_us)], START, END)) is fits


def test_an_event_of_one_moment_contains_the_part_that_ended_then() -> None:
    assert fitting([part("1", 1, "0.01", START)], START, START)


MINUTE = 60 * SECOND_US


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-900, 59)), min_size=1, max_size=8), st.randoms())
def test_equal_parts_are_distributed_whenever_that_is_possible(pairs: list[tuple[int, int]], random: Random) -> None:
    """Each is released into an event of some minute, at most a quarter of an hour after its call ended."""
    held = [part(f"{n}", 1, "0.01", START + m * MINUTE + ago * SECOND_US) for n, (m, ago) in enumerate(pairs)]
    calls = Counter(minute for minute, _ in pairs)
    events = [
        Untold(Sums(n, n * Decimal("0.01"), 7 * n, n), START + m * MINUTE, END + m * MINUTE) for m, n in calls.items()
    ]
    random.shuffle(events)
    random.shuffle(held)
    found = shared_out(events, held)
    assert found is not None
    names = [one.part for parts in found for one in parts or ()]
    assert sorted(names) == sorted(one.part for one in held), "each part is in one event, and in no other"


def test_an_event_that_no_parts_explain_takes_none_from_the_others() -> None:
    odd = Untold(Sums(3, Decimal("0.50"), 21, 3), START, END)
    plain = Untold(Sums(1, Decimal("0.01"), 7, 1), START, END)
    assert shared_out([odd, plain], HELD) == [None, [HELD[0]]]


def test_a_part_that_two_events_could_contain_is_given_to_neither() -> None:
    plain = Untold(Sums(1, Decimal("0.01"), 7, 1), START, END)
    assert shared_out([plain, plain], HELD[:1]) is None


def test_a_choice_that_leaves_another_event_without_parts_is_undone() -> None:
    """The first event could have both parts of one cent, or the part of two."""
    held = [part("1", 1, "0.01"), part("2", 1, "0.01"), HeldPart("3", Sums(2, Decimal("0.02"), 14, 2), START)]
    two, one = (Untold(Sums(n, n * Decimal("0.01"), 7 * n, n), START, END) for n in (2, 1))
    assert shared_out([two, one, one], held) == [[held[2]], [held[0]], [held[1]]]


def test_events_whose_distribution_would_take_too_long_are_left_to_a_person() -> None:
    """Twelve equal parts can be divided in very many ways, and none of them explains the last event."""
    held = [part(str(n), 1, "0.01") for n in range(12)]
    assert shared_out([Untold(Sums(5, Decimal("0.05"), 35, 5), START, END)] * 3, held) is None


ONE_MINUTE = [Untold(Sums(n, n * Decimal("0.01"), 7 * n, n), START, END) for n in range(6)]
#: No parts explain it, though twelve of them have as many calls.
ODD = Untold(Sums(6, Decimal("0.07"), 42, 6), START, END)
LARGE = [part(str(n), 1, "0.01") for n in range(5_000)]


@pytest.mark.parametrize(
    ("events", "held"),
    [
        ([ONE_MINUTE[5]] * 3, LARGE[:12]),
        ([ODD] * 300, LARGE[:12]),
        ([ONE_MINUTE[1]] * 2_000, LARGE),
        ([Untold(Sums(5_000, Decimal(50), 35_000, 5_000), START, END)] * 2_000, LARGE),
        (
            [ONE_MINUTE[1]] * 2_000,
            [part("own", 1, "0.01"), *(part(f"{n}", 1, "0.01", START - 1) for n in range(5_000))],
        ),
    ],
    ids=["choices", "unexplained events", "parts", "all of many parts", "parts of before"],
)
def test_the_work_has_a_bound_for_any_history(
    events: list[Untold], held: list[HeldPart], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in parts that are looked at, which determines the time; beyond it a person decides."""
    looks = []
    spend = found_releases._Looks.spend

    def counted(self: found_releases._Looks, parts: int) -> None:
        looks.append(parts)
        spend(self, parts)

    added, add_up = 0, found_releases._add_up

    def adding(parts: list[HeldPart], sums: Sums) -> bool:
        nonlocal added
        added += len(parts)
        return add_up(parts, sums)

    monkeypatch.setattr(found_releases, "MOST_LOOKS", 200_000)
    monkeypatch.setattr(found_releases._Looks, "spend", counted)
    monkeypatch.setattr(found_releases, "_add_up", adding)
    assert shared_out(events, held) is None
    assert sum(looks[:-1]) <= 200_000 < sum(looks), "the last look was refused"
    assert added <= sum(looks[:-1])


def test_a_long_history_of_simple_parts_is_distributed_within_the_bound() -> None:
    """A day of equal windows: each event looks at the parts of a quarter of an hour, independent of the number before
    and after.
    """
    held = [part(f"{n}", 1, "0.01", START + n * MINUTE) for n in range(1_440)]
    events = [Untold(Sums(1, Decimal("0.01"), 7, 1), START + n * MINUTE, END + n * MINUTE) for n in range(1_440)]
    assert shared_out(events, held) == [[one] for one in held]
