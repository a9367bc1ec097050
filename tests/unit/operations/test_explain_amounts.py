"""An amount from a customer's bill is found again among calls and events, also if it was rounded there."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from connectors.operations.asked_amount import in_question
from connectors.operations.call_stories import (
    HELD,
    CallRow,
    EventStory,
    never_billed,
    usd_of,
    without_event,
)
from schemas.reasons import WRITTEN_OFF

AT = datetime(2026, 11, 20, 10, 3, tzinfo=UTC)


def call(usd: str, part: str = "p", decision: str = "billable") -> CallRow:
    return CallRow("i", part, "acme", decision, "m", "p", 3, Decimal(usd), AT, AT, "c", "r", "0/1", 1, 2)


def event(name: str, cents: str) -> EventStory:
    return EventStory(name, "completed", cents=Decimal(cents))


FOUND = [
    (call("0.012"), event("a", "1.7")),
    (call("0.005"), event("a", "1.7")),
    (call("0.30049"), event("b", "30.049")),
    (call("0.9", "", "own_subscription"), None),
]


@pytest.mark.parametrize(
    ("usd", "places"),
    [
        ("0.012", [0]),
        ("0.01", [0, 1]),
        ("0.017", [0, 1]),
        ("0.30", [2]),
        ("0.3005", [2]),
        ("0.9", [3]),
        ("77", []),
    ],
)
def test_an_amount_is_searched_among_calls_then_events_and_may_match_nothing(usd: str, places: list[int]) -> None:
    assert in_question(FOUND, Decimal(usd)) == [FOUND[place] for place in places]


def test_the_money_of_calls_that_are_never_billed_is_told_apart() -> None:
    """A call on the caller's own subscription has a cost, and nobody is billed for it."""
    calls = [*FOUND, (call("2"), EventStory("c", WRITTEN_OFF)), (call("4"), EventStory("d", HELD))]
    assert never_billed(calls) == Decimal("2.9")
    assert never_billed(FOUND[:3]) == 0


#: Calls that are in no event now, and are billed nevertheless or may be.
BILLED_LATER = [
    (call("3"), None, "open: its event is not sealed yet"),
    (call("5", "", "carried"), None, "billed with the call after it"),
    (call("7", "", "lost"), None, "not billed: lost, a backfill bills it"),
]


def test_a_call_that_is_billed_later_is_not_called_never_billed() -> None:
    """Earlier each call without an event was, also those of a window that is still open."""
    assert never_billed([(one, story) for one, story, _ in BILLED_LATER]) == 0
    assert [without_event(one) for one, _, _ in BILLED_LATER] == [text for _, _, text in BILLED_LATER]
    assert without_event(call("1", "", "unpriced")) == "not billed: unpriced"


def test_the_cost_that_a_later_call_carries_is_added_once() -> None:
    """The success after the failed attempt has the cost of both."""
    assert usd_of([(call("5", "", "carried"), None), (call("6"), event("a", "600"))]) == 6
