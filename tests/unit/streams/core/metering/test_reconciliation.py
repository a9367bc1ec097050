"""Differences are reported: a missing or duplicate part, a lost cent, a sum that Lago does not have."""

from decimal import Decimal

import pytest

from schemas.ledger import Counters, Position, Sum
from streams.core.metering.reconciliation import (
    Emitted,
    LagoUsage,
    Older,
    complaint_about_lago,
    ledger_discrepancies,
    uncompared,
)


def position(seal_seq: int, calls: int, usd: str) -> Position:
    """The position of a ledger that sealed `calls` and holds nothing else."""
    one = Sum(calls, Decimal(usd))
    return Position(seal_seq=seal_seq, counters=Counters(received=one, folded=one, sealed=one))


def emitted(limit: int, *numbers: int, cents: str = "50") -> Emitted:
    found = Emitted(limit)
    for number in numbers:
        found.take(number, 2, Decimal(cents), 1)
    return found


def test_complete_parts_with_their_sums_give_no_difference() -> None:
    assert ledger_discrepancies(0, position(3, 6, "1.5"), [], emitted(3, 1, 2, 3)) == []


def test_an_empty_partition_gives_no_difference() -> None:
    assert ledger_discrepancies(0, Position(), [], Emitted(0)) == []


def test_parts_sealed_after_the_ledger_was_read_are_ignored() -> None:
    assert ledger_discrepancies(0, position(2, 4, "1"), [], emitted(2, 1, 2, 3, 4)) == []


def test_parts_that_have_expired_in_the_topic_are_not_reported() -> None:
    assert ledger_discrepancies(0, position(5, 10, "2.5"), [], emitted(5, 3, 4, 5)) == []


def test_sums_of_expired_parts_come_from_the_tables_and_a_lost_cent_is_still_reported() -> None:
    """The topic keeps 30 days: without the tables the sums could not be compared after that."""
    found = emitted(5, 3, 4, 5)
    found.older = Older(2, 4, Decimal(100))
    assert ledger_discrepancies(0, position(5, 10, "2.5"), [], found) == []
    found.older = Older(2, 4, Decimal(99))
    (said,) = ledger_discrepancies(0, position(5, 10, "2.5"), [], found)
    assert "10 calls and 2.5 USD were sealed, events hold 10 calls and 2.49 USD" in said
    found.older = Older(1, 2, Decimal(1))  # the first was pruned: nothing can be said
    assert ledger_discrepancies(0, position(5, 10, "2.5"), [], found) == []


@pytest.mark.parametrize(
    ("old", "young", "first", "complaints"),
    [
        ((1, 2, 3), (4, 5), 1, 0),  # nothing is gone
        ((1, 3), (4, 5), 3, 0),  # 2 has expired, before 1
        ((1, 2), (4, 5), 4, 0),
        ((2, 3), (5,), 5, 0),  # 4 too
        ((), (4, 5), 4, 0),
        ((1, 2), (), 6, 0),  # no younger one is there: Postgres has to have all
        ((1, 2), (3, 5), 1, 1),  # 4 is too young
    ],
)
def test_a_part_may_expire_before_an_older_one(
    old: tuple[int, ...], young: tuple[int, ...], first: int, complaints: int
) -> None:
    """Each partition of the topic loses its records a segment at a time."""
    found = Emitted(5, expired_ms=100)
    for number in (*old, *young):
        found.take(number, 2, Decimal(50), 100 if number in old else 101)
    found.settle()
    found.older = Older(first - 1, 2 * (first - 1), Decimal(50 * (first - 1)))
    assert found.first == first
    assert len(ledger_discrepancies(0, position(5, 10, "2.5"), [], found)) == complaints


def test_sums_that_cannot_be_compared_are_named() -> None:
    """Earlier only "It adds up" was said."""
    found = emitted(5, 3, 4, 5)
    assert uncompared(0, found) == (
        "partition 0: the sums were not compared, because not all of the parts 1 to 2 are in the topic any more, nor in Postgres"
    )
    found.older = Older(1, 2, Decimal(1))
    assert "parts 1 to 2" in uncompared(0, found)
    found.older = Older(2, 4, Decimal(100))
    assert uncompared(0, found) == ""
    assert uncompared(0, emitted(3, 1, 2, 3)) == uncompared(0, Emitted(0)) == ""
    lost = emitted(5, 3, 4, 5)
    lost.from_the_start = True  # it is a complaint
    assert uncompared(0, lost) == ""


def test_events_lost_from_the_start_of_a_complete_topic_do_not_count_as_expired() -> None:
    found = emitted(5, 3, 4, 5)
    found.from_the_start = True
    (said,) = ledger_discrepancies(0, position(5, 10, "2.5"), [], found)
    assert "parts 1 to 2 are missing" in said
    nothing = Emitted(3, from_the_start=True)
    assert "parts 1 to 3 are missing" in ledger_discrepancies(0, position(3, 6, "1.5"), [], nothing)[0]
    assert ledger_discrepancies(0, Position(), [], Emitted(0, from_the_start=True)) == []


@pytest.mark.parametrize("numbers", [(1, 3), (1, 2), (2,), ()])
def test_a_missing_part_is_reported(numbers: tuple[int, ...]) -> None:
    """Also the last one: the ledger knows its number. An empty topic may be one whose records expired."""
    found = ledger_discrepancies(0, position(3, 6, "1.5"), [], emitted(3, *numbers))
    assert bool(found) == (numbers != ())


def test_a_part_that_was_emitted_twice_is_reported() -> None:
    assert ledger_discrepancies(0, position(2, 4, "1"), [], emitted(2, 1, 2, 2)) == [
        "partition 0: 1 parts were emitted twice"
    ]


def test_a_cent_that_was_sealed_and_not_emitted_is_reported() -> None:
    (found,) = ledger_discrepancies(0, position(2, 4, "1"), [], emitted(2, 1, 2, cents="49.999999999999999"))
    assert "events hold 4 calls" in found


def test_a_ledger_that_does_not_add_up_is_reported() -> None:
    wrong = Position(counters=Counters(received=Sum(2, Decimal(1)), folded=Sum(1, Decimal(1))))
    assert "off by 1 call" in ledger_discrepancies(0, wrong, [], Emitted(0))[0]


def lago(cents: str, lines: int = 1) -> LagoUsage:
    return LagoUsage("sub", 0, 1, Decimal(cents), lines)


@pytest.mark.parametrize(("counted", "agrees"), [("100", True), ("101", True), ("99", False), ("102", False)])
def test_lago_may_differ_by_half_a_cent_for_each_fee_line(counted: str, agrees: bool) -> None:
    assert (complaint_about_lago(lago(counted), Decimal("100.5"), Decimal(0)) == "") == agrees


def test_each_fee_line_is_rounded_by_itself() -> None:
    assert complaint_about_lago(lago("101", lines=3), Decimal("99.5"), Decimal(0)) == ""
    assert complaint_about_lago(lago("102", lines=3), Decimal("99.5"), Decimal(0)) != ""


def test_an_event_in_delivery_may_be_counted_or_not() -> None:
    for counted, agrees in (("100", True), ("150", True), ("151", False)):
        assert (complaint_about_lago(lago(counted), Decimal(100), Decimal(50)) == "") == agrees
