"""Events that Lago stored after it had counted a subscription's last invoice: the fee shows which they are, or it stays
unclear.
"""

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
    """The number of events and cents on Lago's fee."""
    of = list(counted)
    return len(of), int(cents(of).quantize(Decimal(1), ROUND_HALF_UP))


def stored(drawn: Drawn) -> list[CountableEvent]:
    return [CountableEvent(str(number), second * SECOND_US, amount) for number, (second, amount, _) in enumerate(drawn)]


def match_invoice(events: list[CountableEvent], number: int, sum_cents: int) -> InvoiceMatch:
    before = [one for one in events if one.created_us < END]
    earlier = Earlier(len(before), cents(before), tuple(one.transaction_id for one in before))
    return overtaken(earlier, [one for one in events if one.created_us >= END], number, sum_cents)


def ids(events: Iterable[CountableEvent]) -> set[str]:
    return {one.transaction_id for one in events}


def possible(events: list[CountableEvent], told: tuple[int, int]) -> Iterator[set[str]]:
    """Every set of events that Lago may have counted for this fee: all that it stored before some second not before the
    end, and a part of those stored in that second.
    """
    for second in {END, *(one.created_us for one in events if one.created_us >= END)}:
        before = [one for one in events if one.created_us < second]
        then = [one for one in events if one.created_us == second]
        for number in range(len(then) + 1):
            for chosen in combinations(then, number):
                if fee([*before, *chosen]) == told:
                    yield ids([*before, *chosen])


@given(EVENTS)
def test_late_and_unclear_events_together_contain_every_event_that_the_invoice_did_not_count(drawn: Drawn) -> None:
    """Within half a cent, the one rounding of the fee: the late events are never too many, with the unclear ones never
    too few. An event that Lago stored before the end is never called late.
    """
    events = stored(drawn)
    counted = [one for one, (_, _, on_it) in zip(events, drawn, strict=True) if on_it]
    verdict = match_invoice(events, *fee(counted))
    late = [one for one in events if one.transaction_id in verdict.late]
    named = [one for one in events if one.transaction_id in verdict.late + verdict.unclear]
    assert len(named) == len(verdict.late + verdict.unclear)
    billed = fee(counted)[1] + cents(late)
    assert all(one.created_us >= END for one in late)
    assert not late or billed - cents(events) <= Decimal("0.5")
    assert billed + cents(named) - cents(late) - cents(events) >= Decimal("-0.5")


@given(EVENTS, st.integers(1000, 1003))
def test_an_event_is_late_if_no_possible_count_contains_it_and_unclear_if_some_do(drawn: Drawn, at: int) -> None:
    """Over all sets that give the fee: an event in every set is never billed again, and an event in no set is not
    unclear.
    """
    events = stored(drawn)
    marked = zip(events, drawn, strict=True)
    counted = [one for one, (second, _, on_it) in marked if second < at or (second == at and on_it)]
    found = list(possible(events, fee(counted)))
    assert ids(counted) in found
    verdict = match_invoice(events, *fee(counted))
    some, every = set[str]().union(*found), found[0].intersection(*found)
    assert set(verdict.late) == ids(events) - some
    assert set(verdict.unclear) == some - every


@given(EVENTS, st.integers(1000, 1003), st.integers(1, 5))
def test_with_too_many_possible_choices_only_the_events_of_that_second_are_unclear(
    drawn: Drawn, at: int, steps: int
) -> None:
    events = stored(drawn)
    marked = zip(events, drawn, strict=True)
    counted = [one for one, (second, _, on_it) in marked if second < at or (second == at and on_it)]
    exact = match_invoice(events, *fee(counted))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(after_invoice, "MOST_STEPS", steps)
        careful = match_invoice(events, *fee(counted))
    assert set(careful.late) <= set(exact.late)
    assert set(exact.unclear) <= set(careful.unclear)
    assert set(careful.unclear) <= ids(one for one in events if one.created_us == at * SECOND_US)
    assert not set(careful.unclear) & set(careful.late)


@given(EVENTS, st.integers(0, 9), st.integers(0, 1500))
def test_if_no_set_gives_the_fee_no_event_is_called_late(drawn: Drawn, number: int, sum_cents: int) -> None:
    events = stored(drawn)
    assume(not list(possible(events, (number, sum_cents))))
    assert match_invoice(events, number, sum_cents).late == ()
    assert set(match_invoice(events, number, sum_cents).unclear) == ids(events)


def test_an_event_stored_before_the_end_and_not_counted_is_unclear() -> None:
    """The second of the end may contain events stored before it; an earlier second cannot."""
    assert match_invoice([CountableEvent("a", END - 1, Decimal(5))], 0, 0) == InvoiceMatch(unclear=("a",))
    assert match_invoice([CountableEvent("a", END, Decimal(5))], 0, 0) == InvoiceMatch(late=("a",))


def test_only_events_of_the_second_in_which_lago_counted_are_unclear() -> None:
    """
    counted      one of two      not counted
       a    |      b   c      |      d
    """
    four = [
        CountableEvent(name, END + at * SECOND_US, Decimal(5)) for name, at in (("a", 0), ("b", 1), ("c", 1), ("d", 2))
    ]
    assert match_invoice(four, 2, 10) == InvoiceMatch(late=("d",), unclear=("b", "c"))


def test_within_a_second_the_sum_decides_if_only_one_choice_gives_it() -> None:
    two = [CountableEvent("a", END, Decimal(100)), CountableEvent("b", END, Decimal(12))]
    assert match_invoice(two, 1, 100) == InvoiceMatch(late=("b",))
    assert match_invoice(two, 1, 12) == InvoiceMatch(late=("a",))
    three = [*two, CountableEvent("c", END, Decimal("11.7"))]
    assert match_invoice(three, 1, 12) == InvoiceMatch(late=("a",), unclear=("b", "c"))


def test_of_two_events_of_one_second_and_one_cost_with_one_on_the_invoice_both_are_unclear() -> None:
    two = [CountableEvent("a", END, Decimal(5)), CountableEvent("b", END, Decimal(5))]
    assert match_invoice(two, 1, 5) == InvoiceMatch(unclear=("a", "b"))


def test_for_a_second_with_too_many_choices_the_sum_must_lie_between_minimum_and_maximum() -> None:
    """Fifty events, of which the invoice counted half, and one later event."""
    many = [CountableEvent(f"{number:02}", END, Decimal(number)) for number in range(50)]
    events = [*many, CountableEvent("later", END + SECOND_US, Decimal(7))]
    least, most = sum(range(25)), sum(range(25, 50))
    for between in (least, least + 100, most):
        assert match_invoice(events, 25, between) == InvoiceMatch(
            late=("later",), unclear=tuple(one.transaction_id for one in many)
        )
    for outside in (least - 1, most + 1):
        assert match_invoice(events, 25, outside).late == ()
        assert len(match_invoice(events, 25, outside).unclear) == 51


def test_the_sum_of_the_fee_must_be_that_of_the_first_events() -> None:
    two = [CountableEvent("a", END, Decimal(5)), CountableEvent("b", END + SECOND_US, Decimal(7))]
    assert match_invoice(two, 1, 7) == InvoiceMatch(unclear=("a", "b"))
    assert match_invoice(two, 1, 5) == InvoiceMatch(late=("b",))
    assert match_invoice(two, 0, 0) == InvoiceMatch(late=("a", "b"))
    assert match_invoice(two, 2, 12) == InvoiceMatch()


def test_a_fee_with_more_events_than_lago_shows_is_unclear() -> None:
    """The same holds for a fee with another sum than that of its events, and for an incomplete list."""
    two = [CountableEvent("before", END - SECOND_US, Decimal(5)), CountableEvent("after", END, Decimal(7))]
    assert match_invoice(two, 3, 12) == InvoiceMatch(unclear=("before", "after"))
    assert match_invoice(two[:1], 2, 5) == InvoiceMatch(unclear=("before",))


def test_a_fee_is_rounded_once_and_half_up() -> None:
    two = [CountableEvent("a", END - 1, Decimal("1.25")), CountableEvent("b", END - 1, Decimal("1.25"))]
    assert match_invoice(two, 2, 3) == InvoiceMatch()


def test_an_event_received_before_the_end_and_stored_after_the_count_is_reported() -> None:
    """The fee contains only the later event: so Lago did not count the event that it shows as stored before the end."""
    events = [CountableEvent("before", END - 1, Decimal(500)), CountableEvent("after", END, Decimal(1))]
    assert match_invoice(events, 1, 1) == InvoiceMatch(unclear=("before", "after"))


def test_all_but_one_of_many_events_of_one_second_are_found_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The left-out events are chosen if they are fewer: 2 000 choices of one, not 2 000 of 1 999."""
    added = Counter[str]()

    def count(one: Decimal, other: Decimal) -> Decimal:
        added["all"] += 1
        return add(one, other)

    monkeypatch.setattr(after_invoice, "add", count)
    many = [CountableEvent(f"{number:04}", END, Decimal(number)) for number in range(2000)]
    assert match_invoice(many, 1999, 1999 * 1000 - 1700) == InvoiceMatch(late=("1700",))
    assert added["all"] < 10_000
