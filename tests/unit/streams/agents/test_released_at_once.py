"""Held usage is billed soon after its mapping, for any length of the windows, by the meter's own clock."""

from dataclasses import replace

import pytest

from schemas.moments import HOUR_US, SECOND_US
from tests.support.calls import NOON
from tests.support.meter_line import POLICY, Line

CUSTOMERS = [f"customer-{number}" for number in range(20)]


@pytest.mark.parametrize("window_us", [POLICY.window_us, HOUR_US])
def test_held_usage_is_billed_after_the_quiet_time_and_not_at_the_end_of_a_window(window_us: int) -> None:
    assert POLICY.window_us == 60 * SECOND_US
    assert POLICY.quiet_us == 2 * SECOND_US
    line = Line(None, replace(POLICY, window_us=window_us))
    line.now_us = NOON + 2 * HOUR_US  # every window of the calls is over
    line.call(*((name, second) for name in CUSTOMERS for second in range(3)))
    line.punctuate()
    assert line.events == []
    for number, name in enumerate(CUSTOMERS):
        line.map(name)
        line.punctuate()
        line.now_us += POLICY.quiet_us
        line.punctuate()
        billed = [(event.properties["user_id"], event.properties["requests"]) for event in line.events]
        assert billed == [(name, "3") for name in CUSTOMERS[: number + 1]]
