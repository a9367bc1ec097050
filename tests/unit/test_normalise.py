"""Where each count of a call is read, and that what nobody counted is nothing."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from schemas.usage import Usage
from schemas.wire import RawRecord
from streams.core.normalise import normalise
from tests.support.calls import NOON, raw_value, slp

UNIT = Decimal("1e-12")


def usage(**fields: Any) -> Usage:
    return normalise(msgspec.json.decode(raw_value(slp(1, **fields)), type=RawRecord), "acme", UNIT)


def counted(**usage_object: Any) -> dict[str, Any]:
    return {"metadata": {"usage_object": usage_object}}


@pytest.mark.parametrize(
    ("fields", "cached", "reasoning"),
    [
        ({}, 0, 0),
        ({"metadata": {}}, 0, 0),
        (counted(), 0, 0),
        (counted(prompt_tokens_details={}, completion_tokens_details={}), 0, 0),
        (counted(prompt_tokens_details={"cached_tokens": 7}), 7, 0),
        (counted(prompt_tokens_details={"cached_tokens": 0}, cache_read_input_tokens=5), 0, 0),
        (counted(cache_read_input_tokens=5), 5, 0),
        (counted(prompt_tokens_details={}, cache_read_input_tokens=5), 5, 0),
        (counted(completion_tokens_details={"reasoning_tokens": 9}), 0, 9),
        ({"cached_tokens": 3, "reasoning_tokens": 4}, 3, 4),
        ({"cached_tokens": 0, "reasoning_tokens": 0} | counted(cache_read_input_tokens=5), 0, 0),
    ],
)
def test_cached_and_reasoning_tokens_are_what_was_counted_and_else_none(
    fields: dict[str, Any], cached: int, reasoning: int
) -> None:
    found = usage(**fields)
    assert (found.cached_tokens, found.reasoning_tokens) == (cached, reasoning)
    assert (found.tokens_input, found.tokens_output, found.total_tokens) == (10, 12, 22)


@pytest.mark.parametrize("shape", ["integration", "lago", "cloudevent"])
def test_the_shapes_that_tell_neither_count_none(shape: str) -> None:
    call = {"request_id": "r", "transaction_id": "t", "timestamp": NOON // 1_000_000, "response_cost": Decimal("0.1")}
    event = {"cloud_event": {"id": "e", "source": "s"}}
    found = normalise(msgspec.json.decode(raw_value({**call, **event}, shape=shape), type=RawRecord), "acme", UNIT)
    assert (found.cached_tokens, found.reasoning_tokens, found.total_tokens) == (0, 0, 0)
