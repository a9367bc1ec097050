"""What `meterbridge explain` says about an event: other metered events have no amount, so no sum is verified for them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from connectors.cli.explain import verdict
from connectors.operations.explain import CallRow, EventStory
from streams.core.metering.decisions import METERED

AT = datetime(2026, 11, 20, 10, 3, tzinfo=UTC)

PRICED_BY_LAGO = (
    "1 metered event, sent to Lago without an amount. A charge on its metric sets its price; "
    "without one in the plan Lago stores it and bills nothing."
)


def story(decision: str, usd: str, cents: str, calls: int = 1) -> EventStory:
    call = CallRow("i", "p", "acme", decision, "m", "p", 3, Decimal(usd), AT, AT, "c", "r", "0/1")
    return EventStory("call-1", "completed", cents=Decimal(cents), claimed_calls=calls, calls=[call])


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (story("billable", "0.02", "2"), "1 call, 0.02 USD = 2 cents billed: proved."),
        (story("billable", "0", "0"), "1 call, 0 USD = 0 cents billed: proved."),
        (story("billable", "0.02", "3"), "1 call, 0.02 USD, but 1 call and 3 cents are billed: NOT proved."),
        (
            story(METERED, "0", "0"),
            PRICED_BY_LAGO,
        ),
        (story(METERED, "0", "0", calls=2), "1 call, 0 USD, but 2 calls and 0 cents are billed: NOT proved."),
    ],
)
def test_an_event_without_an_amount_is_not_called_billed(told: EventStory, sentence: str) -> None:
    assert verdict(told) == sentence


def test_an_event_without_an_amount_names_the_event_that_replaces_it() -> None:
    first = story(METERED, "0", "0")
    first.again = story(METERED, "0", "0")
    assert verdict(first) == f"replaced by\ncall-1: completed; {PRICED_BY_LAGO}"
