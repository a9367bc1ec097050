"""What a role has not read yet is named, and is a complaint only if nobody will read it soon."""

import pytest

from connectors.cli.reconcile import _text
from connectors.operations.backlog import BEHIND_S, Backlog, age
from connectors.operations.reconcile import ReconciliationReport
from connectors.operations.unread import Unread


@pytest.mark.parametrize(
    ("unread", "runs", "stuck"),
    [
        (Unread(0, 0.0), True, False),
        (Unread(900, 4.0), True, False),
        (Unread(1, BEHIND_S + 1), True, True),
        (Unread(1, 0.0), False, True),
    ],
)
def test_only_records_that_nobody_reads_soon_wait_for_a_person(unread: Unread, runs: bool, stuck: bool) -> None:
    """A meter that runs always has a few unread calls; a nightly command must not fail for them."""
    assert Backlog("raw", "meter", unread, runs).is_stuck is stuck


def test_the_sentence_names_number_age_and_the_missing_process() -> None:
    assert Backlog("raw", "meter").sentence == ""
    assert (
        Backlog("raw", "meter", Unread(2, 3.4)).sentence == "2 calls in raw are not counted yet, the oldest is 3 s old"
    )
    assert Backlog("receipts", "project", Unread(1, 90_000), runs=False).sentence == (
        "1 record in receipts is not in Postgres yet, the oldest is 25.0 h old, and no projector runs: "
        "`meterbridge worker --only project`"
    )


def test_an_age_is_written_in_its_largest_unit() -> None:
    assert [age(seconds) for seconds in (0, 119, 120, 7199, 7200, 172_800)] == [
        *("0 s", "119 s", "2 min", "120 min"),
        *("2.0 h", "2.0 d"),
    ]


def test_a_report_with_unread_calls_adds_up_so_far() -> None:
    """The sums are right, but they are not of all calls."""
    assert _text(ReconciliationReport(uncounted=Backlog("raw", "meter"))).startswith("It adds up: ")
    lag = Backlog("raw", "meter", Unread(2, 3.0))
    assert _text(ReconciliationReport(uncounted=lag)).startswith("It adds up so far: ")
