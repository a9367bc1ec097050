"""What Lago stored after it had counted the last invoice of a subscription is told by the fee, or is unclear."""

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from itertools import combinations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.moments import SECOND_US
from schemas.money import add
from streams.core.delivery import after_invoice
from streams.core.delivery.after_invoice import CountableEvent, Earlier, InvoiceMatch, overtaken

END = 1_000 * SECOND_US
#: Few amounts, so that sums meet, and any.
AMOUNTS = st.sampled_from([Decimal(text) for text in ("0.2", "0.3", "1", "2", "3", "5", "100")]) | st.decimals(
    Decimal("0.001"), Decimal(500), places=3
)
#: Of each event the second in which Lago stored it, its cents, and whether the invoice counted it.
EVENTS = st.lists(st.tuples(st.integers(998, 1003), AMOUNTS, st.booleans()), max_size=9)
Drawn = list[tuple[int, Decimal, bool]]


def cents(events: Iterable[CountableEvent]) -> Decimal:
    return sum((one.cents for one in events), Decimal(0))


def fee(counted: Iterable[CountableEvent]) -> tuple[int, int]:
    """How many events and cents Lago's fee shows."""
    of = list(counted)
    return len(of), int(cents(of).quantize(Decimal(1), ROUND_HALF_UP))


def stored(drawn: Drawn) -> list[CountableEvent]:
    return [CountableEvent(str(number), second * SECOND_US, amount) for number, (second, amount, _) in enumerate(drawn)]


def judged(events: list[CountableEvent], number: int, sum_cents: int) -> InvoiceMatch:
    before = [one for one in events if one.created_us < END]
    earlier = Earlier(len(before), cents(before), tuple(one.transaction_id for one in before))
    return overtaken(earlier, [one for one in events if one.created_us >= END], number, sum_cents)


def ids(events: Iterable[CountableEvent]) -> set[str]:
    return {one.transaction_id for one in events}


def possible(events: list[CountableEvent], told: tuple[int, int]) -> Iterator[set[str]]:
    """Every set that Lago may have counted: all that it stored before some second not before the end, a part of what it
    stored in that second; with this fee.
    """
    for second in {END, *(one.created_us for one in events if one.created_us >= END)}:
        before = [one for one in events if one.created_us < second]
        then = [one for one in events if one.created_us == second]
        for number in range(len(then) + 1):
            for chosen in combinations(then, number):
                if fee([*before, *chosen]) == told:
                    yield ids([*before, *chosen])


@given(EVENTS)
def test_whichever_events_the_invoice_counted_fee_late_and_unclear_events_are_all_that_is_owed(drawn: Drawn) -> None:
    """To half a cent, the one rounding of the fee: the late ones are never too much, with the unclear ones never too
    little. What Lago stored before the end is never called late.
    """
    events = stored(drawn)
    counted = [one for one, (_, _, on_it) in zip(events, drawn, strict=True) if on_it]
    verdict = judged(events, *fee(counted))
    late = [one for one in events if one.transaction_id in verdict.late]
    named = [one for one in events if one.transaction_id in verdict.late + verdict.unclear]
    assert len(named) == len(verdict.late + verdict.unclear)
    billed = fee(counted)[1] + cents(late)
    assert all(one.created_us >= END for one in late)
    assert not late or billed - cents(events) <= Decimal("0.5")
    assert billed + cents(named) - cents(late) - cents(events) >= Decimal("-0.5")


@given(EVENTS, st.integers(1000, 1003))
def test_late_is_what_lago_cannot_have_counted_and_unclear_what_it_may_have_or_not(drawn: Drawn, at: int) -> None:
    """Of all sets that give the fee: what is on the invoice in each is never billed, and what is in none is not unclear."""
    events = stored(drawn)
    marked = zip(events, drawn, strict=True)
    counted = [one for one, (second, _, on_it) in marked if second < at or (second == at and on_it)]
    found = list(possible(events, fee(counted)))
    assert ids(counted) in found
    verdict = judged(events, *fee(counted))
    some, every = set[str]().union(*found), found[0].intersection(*found)
    assert set(verdict.late) == ids(events) - some
    assert set(verdict.unclear) == some - every


@given(EVENTS, st.integers(1000, 1003), st.integers(1, 5))
def test_where_too_many_choices_are_possible_only_that_second_is_unclear(drawn: Drawn, at: int, steps: int) -> None:
    events = stored(drawn)
    marked = zip(events, drawn, strict=True)
    counted = [one for one, (second, _, on_it) in marked if second < at or (second == at and on_it)]
    exact = judged(events, *fee(counted))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(after_invoice, "MOST_STEPS", steps)
        careful = judged(events, *fee(counted))
    assert set(careful.late) <= set(exact.late)
    assert set(exact.unclear) <= set(careful.unclear)
    assert set(careful.unclear) <= ids(one for one in events if one.created_us == at * SECOND_US)
    assert not set(careful.unclear) & set(careful.late)


@given(EVENTS, st.integers(0, 9), st.integers(0, 1500))
def test_where_no_set_fits_the_fee_nothing_is_called_late(drawn: Drawn, number: int, sum_cents: int) -> None:
    events = stored(drawn)
    assume(not list(possible(events, (number, sum_cents))))
    assert judged(events, number, sum_cents).late == ()
    assert set(judged(events, number, sum_cents).unclear) == ids(events)


def test_what_was_stored_before_the_end_and_is_not_counted_is_unclear() -> None:
    """The second of the end may hold what was stored before it, but an earlier one cannot."""
    assert judged([CountableEvent("a", END - 1, Decimal(5))], 0, 0) == InvoiceMatch(unclear=("a",))
    assert judged([CountableEvent("a", END, Decimal(5))], 0, 0) == InvoiceMatch(late=("a",))


def test_only_the_second_in_which_lago_counted_is_unclear() -> None:
    """
    counted      one of two      not counted
       a    |      b   c      |      d
    """
    four = [
        CountableEvent(name, END + at * SECOND_US, Decimal(5)) for name, at in (("a", 0), ("b", 1), ("c", 1), ("d", 2))
    ]
    assert judged(four, 2, 10) == InvoiceMatch(late=("d",), unclear=("b", "c"))


def test_within_a_second_the_sum_tells_events_apart_if_only_one_choice_adds_up() -> None:
    two = [CountableEvent("a", END, Decimal(100)), CountableEvent("b", END, Decimal(12))]
    assert judged(two, 1, 100) == InvoiceMatch(late=("b",))
    assert judged(two, 1, 12) == InvoiceMatch(late=("a",))
    three = [*two, CountableEvent("c", END, Decimal("11.7"))]
    assert judged(three, 1, 12) == InvoiceMatch(late=("a",), unclear=("b", "c"))


def test_of_two_that_were_stored_in_one_second_and_cost_the_same_one_on_the_invoice_is_unclear() -> None:
    two = [CountableEvent("a", END, Decimal(5)), CountableEvent("b", END, Decimal(5))]
    assert judged(two, 1, 5) == InvoiceMatch(unclear=("a", "b"))


def test_of_a_second_with_too_many_choices_the_sum_must_lie_between_the_least_and_the_most() -> None:
    """Fifty events, of which the invoice counted half; and one later."""
    many = [CountableEvent(f"{number:02}", END, Decimal(number)) for number in range(50)]
    events = [*many, CountableEvent("later", END + SECOND_US, Decimal(7))]
    least, most = sum(range(25)), sum(range(25, 50))
    for between in (least, least + 100, most):
        assert judged(events, 25, between) == InvoiceMatch(
            late=("later",), unclear=tuple(one.transaction_id for one in many)
        )
    for outside in (least - 1, most + 1):
        assert judged(events, 25, outside).late == ()
        assert len(judged(events, 25, outside).unclear) == 51


def test_the_fees_sum_must_be_that_of_the_first_events() -> None:
    two = [CountableEvent("a", END, Decimal(5)), CountableEvent("b", END + SECOND_US, Decimal(7))]
    assert judged(two, 1, 7) == InvoiceMatch(unclear=("a", "b"))
    assert judged(two, 1, 5) == InvoiceMatch(late=("b",))
    assert judged(two, 0, 0) == InvoiceMatch(late=("a", "b"))
    assert judged(two, 2, 12) == InvoiceMatch()


def test_a_fee_of_more_events_than_lago_shows_is_unclear() -> None:
    """Another sum than theirs, or a list that is not whole."""
    two = [CountableEvent("before", END - SECOND_US, Decimal(5)), CountableEvent("after", END, Decimal(7))]
    assert judged(two, 3, 12) == InvoiceMatch(unclear=("before", "after"))
    assert judged(two[:1], 2, 5) == InvoiceMatch(unclear=("before",))


def test_a_fee_is_rounded_once_and_half_up() -> None:
    two = [CountableEvent("a", END - 1, Decimal("1.25")), CountableEvent("b", END - 1, Decimal("1.25"))]
    assert judged(two, 2, 3) == InvoiceMatch()


def test_what_was_begun_before_the_end_and_stored_after_the_count_is_named() -> None:
    """The fee is of the later one alone: so Lago did not count what it shows as stored before the end."""
    events = [CountableEvent("before", END - 1, Decimal(500)), CountableEvent("after", END, Decimal(1))]
    assert judged(events, 1, 1) == InvoiceMatch(unclear=("before", "after"))


def test_all_but_one_of_many_events_of_one_second_are_told_apart_by_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left out is drawn where that is less: 2 000 draws of one, not 2 000 of 1 999."""
    added = Counter[str]()

    def count(one: Decimal, other: Decimal) -> Decimal:
        added["all"] += 1
        return add(one, other)

    monkeypatch.setattr(after_invoice, "add", count)
    many = [CountableEvent(f"{number:04}", END, Decimal(number)) for number in range(2000)]
    assert judged(many, 1999, 1999 * 1000 - 1700) == InvoiceMatch(late=("1700",))
    assert added["all"] < 10_000
