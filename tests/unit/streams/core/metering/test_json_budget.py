"""The tolerant JSON reader has a bound on its work, and normal calls are far below it."""

import json
import time

import pytest

from schemas.wire import Call
from streams.core.metering.json_budget import MAX_SIGNS, MAX_SIGNS_OF_TEXT, Budget, may_be_read
from streams.core.metering.tolerant_reader import PartialCall

MIB = 1 << 20


@pytest.mark.parametrize(
    "element",
    [
        b'{"spend":NaN,"x":[0' + b",0" * MAX_SIGNS + b"]}",
        b'{"spend":NaN,"x":[' + b"[" * MAX_SIGNS + b"]}",
        b'{"spend":NaN,"x":[' + b'""' * MAX_SIGNS * 2 + b"]}",
        b'{"spend":NaN,"x":' + b'"\\""' * 4 * MIB,
        b'"' * 16 * MIB,
    ],
    ids=["commas", "brackets", "texts", "odd texts", "quotes"],
)
def test_a_document_of_very_many_parts_is_refused_at_once(element: bytes) -> None:
    begun = time.process_time()
    assert not Budget().takes(element)
    assert time.process_time() - begun < 1


def test_text_inside_a_string_does_not_count_as_parts() -> None:
    prompt = 'a, b, [c], {d}, \\"e\\", ' * 300_000
    element = f'{{"id":"x","spend":NaN,"messages":[{{"content":"{prompt}"}}]}}'.encode()
    assert Budget().takes(element)
    assert Budget().takes(b'{"id":"x","spend":NaN,"messages":"' + b"[{,\\\\" * MIB)


def test_all_elements_of_a_body_share_one_budget() -> None:
    budget, element = Budget(1000), b"[" + b"0," * 299 + b"0]"
    assert [budget.takes(element) for _ in range(5)] == [True, True, True, False, False]
    assert budget.left == 100


def test_json_inside_a_string_has_a_bound_too() -> None:
    small, large = json.dumps({"user_api_key_user_id": "u"}), f'{{"x":[{"0," * MAX_SIGNS_OF_TEXT}0]}}'
    assert may_be_read(small) and not may_be_read(large)
    assert "metadata" in PartialCall({"metadata": small}, Call).kept
    soft = PartialCall({"metadata": large}, Call)
    assert (soft.kept, soft.odd) == ({}, ["metadata"])
