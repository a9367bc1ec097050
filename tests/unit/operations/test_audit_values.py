"""Values of audit lines that no parser follows: they do not end the check of the other lines."""

import pytest

from connectors.operations.audit_check import _json


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a":' * 5000, "no JSON", "1e9999999999999999999"])
def test_a_value_that_cannot_be_parsed_is_equal_to_itself(text: str) -> None:
    assert _json(text) == _json(text)
    assert _json(text) != _json("[]")


def test_values_are_compared_as_json() -> None:
    assert _json('{"a": 1, "b": 2.50}') == _json('{"b":2.5,"a":1}')
    assert _json(None) is None
