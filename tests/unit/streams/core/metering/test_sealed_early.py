"""A small bound on open windows: windows sealed early bill the same amount, and a busy window is still one event."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.moments import SECOND_US
from tests.support.calls import NOON
from tests.support.meter_line import LATE, POLICY, Line

CALLS = st.lists(st.tuples(st.sampled_from(["acme", "zoo"]), st.integers(0, 1500), st.sampled_from("abc")), max_size=9)


def line(most: int | None, grace_s: int = 10_000) -> Line:
    """A partition whose windows are never due: only the bound causes seals."""
    policy = replace(POLICY, grace_us=grace_s * SECOND_US, group_by=("team_id",))
    created = Line(None, policy if most is None else replace(policy, max_open=most))
    created.map("acme")
    return created


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.one_of(CALLS, st.none(), st.just("zoo"), st.just("again")), max_size=12), most=st.integers(0, 5)
)
def test_a_bound_on_open_windows_changes_no_amount(steps: list[object], most: int) -> None:
    """For any order of calls, ticks, mappings of held usage, and changes of the worker."""
    free, tight = line(None), line(most)
    for step in [*steps, None]:
        for one in (free, tight):
            match step:
                case None:
                    one.punctuate()
                case "zoo":
                    one.map("zoo")
                case "again":
                    one.taken_over(LATE)
                case calls:
                    for name, second, team in calls:  # type: ignore[attr-defined]
                        one.call((name, second), metadata={"user_api_key_team_id": team})
        assert tight.money() == free.money()
        if step is None:
            happened = [first for first in tight.ledger.open if tight.ledger.windows[first].max_end_us <= LATE]
            assert len(happened) <= most
    ids = [event.transaction_id for event in tight.events]
    assert len(ids) == len(set(ids))
    assert tight.ledger.position.seal_seq == len(ids)


def test_a_busy_window_is_one_event_and_windows_with_one_call_are_sealed_early() -> None:
    crowded = line(10)
    with capture_logs() as result:
        for number in range(30):
            crowded.now_us += SECOND_US
            crowded.call(("acme", 0), metadata={"user_api_key_team_id": f"once-{number}"})
            crowded.call(("acme", 0), metadata={"user_api_key_team_id": "often"})
            crowded.punctuate()
    left = {event.properties["team_id"] for event in crowded.events}
    assert "often" not in left and len(left) == len(crowded.events) == 31 - len(crowded.ledger.open)
    assert len(crowded.ledger.open) <= 10
    (often,) = (window for window in crowded.ledger.windows.values() if window.group == ("often",))
    assert (often.count, often.cost) == (30, Decimal(30))
    assert [one["event"] for one in result] == ["windows_sealed_early"], "once"


def test_at_the_bound_nothing_is_sealed_and_one_more_window_leaves_four_fifths_open() -> None:
    crowded = line(10)
    for number in range(10):
        crowded.call(("acme", number * 60))
    crowded.punctuate()
    assert (len(crowded.ledger.open), crowded.events) == (10, [])
    crowded.call(("acme", 600))
    crowded.punctuate()
    assert len(crowded.ledger.open) == 8
    starts = [event.properties["window_start"][11:19] for event in crowded.events]
    assert starts == ["12:00:00", "12:01:00", "12:02:00"]


def test_no_event_is_sent_to_lago_before_its_usage() -> None:
    """If a LiteLLM's clock is ahead, such windows wait at any bound."""
    ahead = line(2)
    ahead.call(*(("acme", (LATE - NOON) // SECOND_US + number * 60) for number in range(6)))
    ahead.punctuate()
    assert len(ahead.events) == 1
    ahead.now_us += 600 * SECOND_US
    ahead.punctuate()
    assert len(ahead.ledger.open) == 1
    assert len(ahead.events) == 5
