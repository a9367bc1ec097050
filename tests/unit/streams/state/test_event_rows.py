"""The rows of an event: whether a rate card priced it is read from the event's property, and not guessed from a text."""

import msgspec
import pytest

from connectors.postgres.rows_of_events import event_rows
from schemas.records import LagoEvent, Manifest
from tests.support.history import TopicRecord

MANIFEST = (("manifest", msgspec.json.encode(Manifest(0, 7, 8, 2, (3,)))),)


def rated(value: bytes) -> list[object]:
    """The last column: of the event, and of the held window in it."""
    return [row[-1] for row in event_rows([TopicRecord(0, 0, None, value, MANIFEST)]).rows]


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"rate": "r1", "rate_factor": "0.5"}, True),
        ({"unit": "1"}, False),
        ({"model": '"rate":"r1"'}, False),
        ({"rate_factor": "0.5", "model": "rate"}, False),
        ({"transaction_id": "t", "rate": "of a sender's own"}, False),
    ],
)
def test_a_property_that_looks_like_a_rate_is_none(properties: dict[str, str], expected: bool) -> None:
    event = LagoEvent("part-7", "sub", "ai_usage", "1.000", "1", properties)
    assert rated(msgspec.json.encode(event)) == [expected, None]
    assert rated(msgspec.json.format(msgspec.json.encode(event), indent=2)) == [expected, None]
