"""Which periods of a subscription's id have ended, and how long each lasted."""

from connectors.lago.responses import Subscription
from connectors.operations.last_invoice import Life, lives_of
from schemas.customers import Period
from schemas.moments import HOUR_US, SECOND_US, to_iso

START = 1_790_812_800 * SECOND_US
END = START + 10 * HOUR_US


def subscription(name: str, started_us: int, ended_us: int | None) -> Subscription:
    ended = None if ended_us is None else to_iso(ended_us)
    return Subscription(name, to_iso(started_us), "llm", ended, f"id of {started_us}")


def test_a_period_lasts_to_the_end_of_the_second_that_lago_reports_or_to_the_start_of_the_next() -> None:
    """A plan change ends one period and starts the next at once; Lago reports the end to the second."""
    other = START + HOUR_US
    listed = [
        subscription("sub-a", START, END),
        subscription("sub-a", END + 400_000, None),
        subscription("sub-b", START, other),
        subscription("sub-c", START - HOUR_US, START - 1),
        Subscription("pending"),
    ]
    periods = [Period("sub-a", START, END), Period("sub-a", END + 400_000), Period("sub-b", START, other)]
    assert lives_of(listed, periods, START) == [
        Life("sub-a", f"id of {START}", "llm", START, END, END + 400_000),
        Life("sub-b", f"id of {START}", "llm", START, other, other + SECOND_US),
    ]
