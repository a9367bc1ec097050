"""What `meterbridge explain` says about an event: other metered events have no amount, so no sum is verified for them."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from connectors.cli import explain
from connectors.cli.base import say
from connectors.cli.explain import _headline, _whereabouts, verdict
from connectors.operations.call_stories import HELD, CallRow, EventStory
from connectors.operations.dead_letters import DeadLetter
from streams.core.metering.decisions import METERED

AT = datetime(2026, 11, 20, 10, 3, tzinfo=UTC)

PRICED_BY_LAGO = (
    "1 metered event, sent to Lago without an amount. A charge on its metric sets its price; "
    "without one in the plan Lago stores it and bills nothing."
)

IF_IT_LASTS = "If it stays so: `curl $LAGO_API_URL/health`, then look for `breaker_opened` in the worker's log."


MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC)


def story(decision: str, usd: str, cents: str, calls: int = 1, status: str = "completed") -> EventStory:
    call = CallRow("i", "p", "acme", decision, "m", "p", 3, Decimal(usd), AT, AT, "c", "r", "0/1")
    return EventStory("call-1", status, cents=Decimal(cents), claimed_calls=calls, calls=[call])


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (story("billable", "0.02", "2"), "1 call, 0.02 USD = 2 cents billed: proved."),
        (story("billable", "0", "0"), "1 call, 0 USD = 0 cents billed: proved."),
        (story("billable", "0.02", "3"), "1 call, 0.02 USD, but the event has 1 call and 3 cents: NOT proved."),
        (
            story(METERED, "0", "0"),
            PRICED_BY_LAGO,
        ),
        (story(METERED, "0", "0", calls=2), "1 call, 0 USD, but the event has 2 calls and 0 cents: NOT proved."),
    ],
)
def test_an_event_without_an_amount_is_not_called_billed(told: EventStory, sentence: str) -> None:
    assert verdict(told) == sentence


@pytest.mark.parametrize(
    ("billed_at", "usd", "headline"),
    [
        (MIDNIGHT, "0.02", "call-1: completed, billed as of 2026-12-01 00:00:00 UTC"),
        (AT, "0.02", "call-1: completed"),
        (AT.replace(minute=0), "0.02", "call-1: completed"),
        (None, "0.02", "call-1: completed"),
        (MIDNIGHT, None, "call-1: completed"),
    ],
)
def test_usage_that_is_billed_in_a_later_period_says_from_when(
    billed_at: datetime | None, usd: str | None, headline: str
) -> None:
    """It is on a later invoice than its calls show. Without a call in the log nothing is known of it."""
    told = story("billable", usd or "0", "2")
    told.billed_at = billed_at
    if usd is None:
        told.calls = []
    assert _headline(told) == headline


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("pending", f"The event is not at Lago yet. {IF_IT_LASTS}"),
        ("processing", f"Lago has not accepted the event yet; it is sent again. {IF_IT_LASTS}"),
        (
            "failed",
            "Lago does not bill the event. `meterbridge dlq list` has its dead letter, unless that was dismissed.",
        ),
    ],
)
def test_an_event_that_lago_does_not_have_is_not_called_billed(status: str, sentence: str) -> None:
    proved, metered = story("billable", "0.02", "2", status=status), story(METERED, "0", "0", status=status)
    proved.maybe_sent = metered.maybe_sent = False
    assert verdict(proved) == f"1 call, 0.02 USD = 2 cents: the sum is proved. {sentence}"
    assert verdict(metered) == f"1 metered event without an amount. {sentence}"


@pytest.mark.parametrize(
    ("reason", "maybe_sent", "may_have"),
    [
        ("http_409", True, True),
        ("http_409", False, False),
        ("timeout", False, False),
        ("http_409", None, True),
        ("lago_refused", None, False),
    ],
)
def test_of_a_dead_letter_that_lago_may_have_it_is_not_said_that_lago_does_not_bill_it(
    reason: str, maybe_sent: bool | None, may_have: bool
) -> None:
    failed = story("billable", "0.02", "2", status="failed")
    failed.reason, failed.maybe_sent = reason, maybe_sent
    assert (failed.may_be_in_lago, "Lago may have the event" in verdict(failed)) == (may_have, may_have)
    assert ("Lago does not bill the event" in verdict(failed)) is not may_have


def test_an_event_without_an_amount_names_the_event_that_replaces_it() -> None:
    first = story(METERED, "0", "0")
    first.again = story(METERED, "0", "0")
    assert verdict(first) == f"replaced by\ncall-1: completed; {PRICED_BY_LAGO}"


@pytest.mark.parametrize(
    ("is_past", "why"),
    [(False, "no_mapping"), (True, "no_mapping when it was counted; now: `meterbridge held list`")],
)
def test_a_reason_that_may_have_changed_is_named_as_one_of_the_past(is_past: bool, why: str) -> None:
    held = story("billable", "0.02", "0", status=HELD)
    held.reason, held.reason_is_past = "no_mapping", is_past
    assert _whereabouts([(held.calls[0], held)]) == f"r m 0.02 USD -> call-1: held ({why}); 1 call, 0.02 USD wait."


@pytest.mark.parametrize("rejected", [[], None])
def test_a_name_in_the_answer_to_an_id_does_not_control_the_terminal(
    rejected: list[DeadLetter] | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names of orgs and subscriptions are printed as `say` prints every text."""
    monkeypatch.setattr(explain, "_whereabouts", lambda _calls: "billed to \x1b]0;title\x07")
    calls: list[Any] = [(None, None)]
    say({}, as_json=False, table=lambda: explain._whereabouts_of_all(calls, rejected))
    assert "billed to \\x1b]0;title\\x07" in capsys.readouterr().out


def test_the_calls_of_a_customer_are_listed_with_their_day(capsys: pytest.CaptureFixture[str]) -> None:
    """`--around 24h` finds calls of several days."""
    told = story("billable", "0.02", "2")
    told.billed_at = MIDNIGHT
    say({}, as_json=False, table=lambda: explain._reasons([(told.calls[0], told)], 1, ""))
    said = capsys.readouterr().out
    assert "2026-11-20 10:03:00.000000 - 10:03:00.000000" in said
    assert "call-1 (completed, billed as of 2026-12-01 00:00:00 UTC)" in said


@pytest.mark.parametrize("reason", ["unbillable_ended", "unbillable_invalid_code"])
def test_an_event_that_lago_has_and_does_not_bill_is_not_looked_for_among_the_dead_letters(reason: str) -> None:
    told = story("billable", "0.02", "2", status="failed")
    told.reason, told.maybe_sent = reason, None
    assert not told.may_be_in_lago
    assert verdict(told).endswith(
        "Lago has the event and does not bill it: docs/errors.md has the next step for its reason."
    )
