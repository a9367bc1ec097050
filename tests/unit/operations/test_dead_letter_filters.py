"""Which dead letters an option of `meterbridge dlq` selects."""

import pytest

from connectors.operations.dead_letters import CALLS, EVENTS, DeadLetter, Filters, selected
from streams.core.delivery.dead_letter_headers import MAYBE_SENT

CALL = DeadLetter(CALLS, 0, 1, b"acme", b"{}", (), 0, reason="bad_cost")
REFUSED = DeadLetter(EVENTS, 0, 2, b"sub", b"{}", ((MAYBE_SENT, b"0"),), 0, reason="lago_refused")
MAYBE = DeadLetter(EVENTS, 0, 3, b"sub", b"{}", ((MAYBE_SENT, b"1"),), 0, reason="http_409")


@pytest.mark.parametrize(
    ("may_be_in_lago", "found"), [(None, [CALL, REFUSED, MAYBE]), (True, [MAYBE]), (False, [CALL, REFUSED])]
)
def test_dead_letters_are_selected_by_whether_lago_may_have_them(
    may_be_in_lago: bool | None, found: list[DeadLetter]
) -> None:
    filters = Filters(may_be_in_lago=may_be_in_lago)
    assert [one for one in (CALL, REFUSED, MAYBE) if selected(one, filters)] == found
