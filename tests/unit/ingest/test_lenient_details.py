"""The detail of a rejected element says what is wrong with its JSON, and where."""

import pytest

from connectors.ingest.lenient_json import tree_of
from connectors.ingest.rejection_record import InvalidElement
from streams.core.metering.json_budget import Budget


@pytest.mark.parametrize(
    ("element", "reason", "detail"),
    [
        (b'{"a": 1', "not_json", "the JSON is invalid at byte 7 of the element, where it ends: was it cut off?"),
        (b" \n", "not_json", "the body is empty: send a call as a JSON object"),
        ('{"ä": x}'.encode(), "not_json", "the JSON is invalid at byte 7 of the element"),
        (b"[1]", "not_an_object", "send each call as a JSON object"),
    ],
)
def test_a_rejection_names_the_place_of_the_error_or_the_next_step(element: bytes, reason: str, detail: str) -> None:
    with pytest.raises(InvalidElement) as refused:
        tree_of(element, Budget())
    assert (refused.value.reason, refused.value.detail) == (reason, detail)
