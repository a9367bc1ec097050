"""What Lago stored after it had counted the last invoice of a subscription is told by the fee, or is unclear."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal

from hypothesis import given
from hypothesis import strategies as st

from schemas.moments import SECOND_US
from streams.core.delivery.after_invoice import Stored, Verdict, overtaken

END = 1_000 * SECOND_US
AMOUNTS = st.decimals(Decimal("0.001"), Decimal(500), places=3)
#: Of each event the second in which Lago stored it, its cents, and whether the invoice counted it.
EVENTS = st.lists(st.tuples(st.integers(990, 1010), AMOUNTS, st.booleans()), max_size=12)


def cents(events: Iterable[Stored]) -> Decimal:
    return sum((one.cents for one in events), Decimal(0))


def fee(counted: list[Stored]) -> tuple[int, int]:
    """How many events and cents Lago's fee shows."""
    return len(counted), int(cents(counted).quantize(Decimal(1), ROUND_HALF_UP))


def stored(drawn: list[tuple[int, Decimal, bool]]) -> list[Stored]:
    return [Stored(str(number), second * SECOND_US, amount) for number, (second, amount, _) in enumerate(drawn)]


@given(EVENTS)
def test_whichever_events_the_invoice_counted_fee_and_late_events_are_all_that_is_owed(
    drawn: list[tuple[int, Decimal, bool]],
) -> None:
    """To half a cent, the one rounding of the fee; what Lago stored before the end is never called late."""
    events = stored(drawn)
    counted = [one for one, (_, _, on_it) in zip(events, drawn, strict=True) if on_it]
    verdict = overtaken(events, *fee(counted), END)
    late = [one for one in events if one.transaction_id in verdict.late]
    assert not (verdict.late and verdict.unclear)
    if not verdict.unclear:
        billed = fee(counted)[1] + cents(late)
        assert abs(billed - cents(events)) <= Decimal("0.5")
        assert all(one.created_us >= END for one in late)


@given(EVENTS, st.integers(1000, 1010))
def test_what_lago_counted_in_the_order_it_stored_is_told_exactly(
    drawn: list[tuple[int, Decimal, bool]], counted_at: int
) -> None:
    events = stored(drawn)
    counted = [one for one in events if one.created_us < counted_at * SECOND_US]
    verdict = overtaken(events, *fee(counted), END)
    assert verdict.unclear == ()
    assert set(verdict.late) == {one.transaction_id for one in events if one not in counted}


def test_what_was_stored_before_the_end_and_is_not_counted_is_unclear() -> None:
    """The second of the end may hold what was stored before it, but an earlier one cannot."""
    assert overtaken([Stored("a", END - 1, Decimal(5))], 0, 0, END) == Verdict(unclear=("a",))
    assert overtaken([Stored("a", END, Decimal(5))], 0, 0, END) == Verdict(late=("a",))


def test_of_two_that_were_stored_in_one_second_one_on_the_invoice_is_unclear() -> None:
    two = [Stored("a", END, Decimal(5)), Stored("b", END, Decimal(5))]
    assert overtaken(two, 1, 5, END) == Verdict(unclear=("a", "b"))


def test_the_fees_sum_must_be_that_of_the_first_events() -> None:
    two = [Stored("a", END, Decimal(5)), Stored("b", END + SECOND_US, Decimal(7))]
    assert overtaken(two, 1, 7, END) == Verdict(unclear=("a", "b"))
    assert overtaken(two, 1, 5, END) == Verdict(late=("b",))
    assert overtaken(two, 0, 0, END) == Verdict(late=("a", "b"))
    assert overtaken(two, 2, 12, END) == Verdict()


def test_a_fee_of_more_events_than_lago_shows_is_unclear() -> None:
    """Another sum than theirs, or a list that is not whole."""
    two = [Stored("before", END - SECOND_US, Decimal(5)), Stored("after", END, Decimal(7))]
    assert overtaken(two, 3, 12, END) == Verdict(unclear=("after",))
    assert overtaken(two[:1], 2, 5, END) == Verdict(unclear=("before",))


def test_a_fee_is_rounded_once_and_half_up() -> None:
    two = [Stored("a", END - 1, Decimal("1.25")), Stored("b", END - 1, Decimal("1.25"))]
    assert overtaken(two, 2, 3, END) == Verdict()
