"""Totals of event states on `/metrics`: every event once, in its latest state, however often its receipts are read."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from schemas.moments import HOUR_US
from schemas.records import Receipt
from streams.core.delivery.event_states import REMEMBERED_HOURS, EventStateCounter, StateTotals, totals
from streams.core.delivery.receipt_states import STATUSES

NOW = 1_800_000_000_000_000


def receipt(event: str, status: str, at: int = NOW) -> Receipt:
    return Receipt(event, status, at)


def totals_of(*receipts: Receipt) -> StateTotals:
    tally = EventStateCounter()
    tally.take(receipts)
    return totals([tally])


def test_an_event_is_counted_in_its_latest_state() -> None:
    life = [receipt("a", status) for status in ("pending", "processing", "completed")]
    assert totals_of(*life[:1]) == StateTotals(1, 0, 0, 1)
    assert totals_of(*life[:2]) == StateTotals(1, 0, 0, 1)
    assert totals_of(*life) == StateTotals(1, 1, 0, 0)


def test_a_dead_letter_that_is_posted_again_no_longer_counts_as_failed() -> None:
    dead = [receipt("a", "pending"), receipt("a", "failed")]
    assert totals_of(*dead) == StateTotals(1, 0, 1, 0)
    assert totals_of(*dead, receipt("a", "processing")) == StateTotals(1, 0, 0, 1)
    assert totals_of(*dead, receipt("a", "completed")) == StateTotals(1, 1, 0, 0)


def test_a_repeated_final_receipt_is_counted_once_in_one_batch_and_in_two() -> None:
    tally = EventStateCounter()
    tally.take([receipt("a", "pending"), receipt("a", "completed"), receipt("a", "completed")])
    tally.take([receipt("a", "completed"), receipt("a", "pending"), receipt("a", "failed")])
    assert totals([tally]) == StateTotals(1, 1, 0, 0)


def test_an_event_whose_first_receipt_has_expired_is_counted_all_the_same() -> None:
    assert totals_of(receipt("a", "completed"), receipt("b", "failed")) == StateTotals(2, 1, 1, 0)


def test_a_state_from_a_later_version_changes_nothing() -> None:
    assert totals_of(receipt("a", "pending"), receipt("a", "disputed"), receipt("b", "disputed")) == StateTotals(
        1, 0, 0, 1
    )


def test_completed_events_are_forgotten_after_two_days_and_others_never() -> None:
    """Otherwise memory would grow forever; a repeat comes within minutes, not days."""
    tally = EventStateCounter()
    tally.take([receipt("stuck", "pending", NOW)])
    for hour in range(200):
        now = NOW + hour * HOUR_US
        tally.take([receipt(f"{hour}-{number}", "pending", now) for number in range(50)])
        tally.take([receipt(f"{hour}-{number}", "completed", now) for number in range(50)])
        tally.take([receipt(f"{hour}-late", "completed", now - 100 * HOUR_US)])
    assert len(tally._completed) <= (REMEMBERED_HOURS + 1) * 51
    assert len(tally._unsettled) == 1
    assert totals([tally]) == StateTotals(10_201, 10_200, 0, 1)
    tally.take([receipt("160-7", "completed", now), receipt("stuck", "completed", now)])
    assert totals([tally]) == StateTotals(10_201, 10_201, 0, 0)


def test_a_repeated_late_receipt_of_a_forgotten_hour_is_still_recognised() -> None:
    tally = EventStateCounter()
    tally.take([receipt("new", "completed", NOW)])
    for _ in range(2):
        tally.take([receipt("old", "completed", NOW - 100 * HOUR_US)])
    assert totals([tally]).total_events == 2


def test_totals_are_sums_over_partitions() -> None:
    one, other = EventStateCounter(), EventStateCounter()
    one.take([receipt("a", "completed"), receipt("b", "pending")])
    other.take([receipt("c", "failed"), receipt("d", "processing")])
    assert totals([one, other]) == StateTotals(4, 1, 1, 2)
    assert totals([]) == StateTotals(0, 0, 0, 0)


RECEIPTS = st.lists(st.builds(receipt, st.sampled_from("abcdef"), st.sampled_from(STATUSES)), max_size=40)


@given(RECEIPTS, st.lists(st.integers(0, 40), max_size=6))
def test_totals_are_the_same_for_every_split_into_batches(receipts: list[Receipt], cuts: list[int]) -> None:
    tally, states = EventStateCounter(), dict[str, str]()
    places = sorted({0, len(receipts), *(cut for cut in cuts if cut < len(receipts))})
    for start, end in pairwise(places):
        tally.take(receipts[start:end])
    for one in receipts:
        known = states.get(one.transaction_id)
        if known != "completed" and (known is None or one.status != "pending"):
            states[one.transaction_id] = one.status
    of = list(states.values())
    waiting = of.count("pending") + of.count("processing")
    assert totals([tally]) == StateTotals(len(of), of.count("completed"), of.count("failed"), waiting)


@given(RECEIPTS, st.integers(0, 40))
def test_reading_the_last_receipts_again_changes_nothing(receipts: list[Receipt], start: int) -> None:
    tally = EventStateCounter()
    tally.take(receipts)
    before = totals([tally])
    tally.take(receipts[start:])
    assert totals([tally]) == before


def unbillable(event: str) -> Receipt:
    return Receipt(event, "failed", NOW, reason="unbillable_invalid_code")


def test_an_event_that_lago_withdraws_has_failed_though_it_was_completed() -> None:
    """Lago answers 200 first and finds within the hour that no metric counts the event."""
    done = [receipt("a", "pending"), receipt("a", "completed"), receipt("b", "completed")]
    assert totals_of(*done, unbillable("a")) == StateTotals(2, 1, 1, 0)
    tally = EventStateCounter()
    tally.take(done)
    for _ in range(2):  # a webhook comes three times, and again after a restart
        tally.take([unbillable("a"), receipt("a", "pending"), unbillable("a")])
        assert totals([tally]) == StateTotals(2, 1, 1, 0)
        assert (tally.state("a"), tally.state("b"), tally.state("c")) == ("failed", "completed", None)
    tally.take([receipt("a", "completed")])
    assert totals([tally]) == StateTotals(2, 2, 0, 0)
    tally.take([receipt("a", "completed"), unbillable("a"), receipt("a", "completed")])
    assert totals([tally]) == StateTotals(2, 2, 0, 0)


def test_another_programs_event_that_lago_withdraws_is_not_counted() -> None:
    """Another program may send events to the same Lago."""
    assert totals_of(unbillable("foreign"), receipt("a", "completed")) == StateTotals(1, 1, 0, 0)
