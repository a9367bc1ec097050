"""The end of an array is found at any nesting, and the time for it depends only on its length."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ingest.body_splitter import split, wrapped_in
from connectors.ingest.brackets import end_of_nested
from connectors.ingest.rejection_record import InvalidElement

#: Characters outside strings, and strings that contain brackets.
PARTS = st.lists(
    st.sampled_from(["[", "]", "{", "}", ",", "0", " ", '"a"', '"]"', '"[\\""', '"\\\\"', "NaN", ":"])
    | st.text('x"\\[]', max_size=4).map(json.dumps),
    max_size=400,
)
MIB = 1 << 20


def naive(text: str) -> int | None:
    """Looks at each character."""
    depth, inside, escaped = 1, False, False
    for at, sign in enumerate(text):
        if inside:
            inside, escaped = escaped or sign != '"', sign == "\\" and not escaped
        elif sign == '"':
            inside = True
        else:
            depth += (sign in "[{") - (sign in "]}")
            if not depth:
                return at + 1
    return None


@given(PARTS, st.integers(0, 300), st.integers(1, 40))
def test_the_array_ends_where_its_first_bracket_is_closed(parts: list[str], deep: int, again: int) -> None:
    text = "[" * deep + "".join(parts) * again + "]" * deep + "]{}["
    expected = naive(text)
    if expected is None:
        with pytest.raises(InvalidElement, match="not_json"):
            end_of_nested(memoryview(text.encode()), 0)
    else:
        assert end_of_nested(memoryview(text.encode()), 0) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"events":' + b"[" * (16 * MIB),
        b'{"events":' + b"[0" * (4 * MIB) + b"]" * (4 * MIB) + b"}",
        b'[{"a":NaN,"b":[' + b"{}," * (5 * MIB) + b"0]}]",
        b"[" + (b"[" * 500 + b"NaN" + b"]" * 500 + b",") * (16 * MIB // 1004) + b"0]",
        b"[" + b"[]" * (8 * MIB) + b"]",
        b"[[NaN," + b'"' * (8 * MIB + 1),
        b"[[NaN," + b'"\\"' * (4 * MIB),
        b"[" + b'{"":"","":[[[]]]},' * MIB + b"NaN]",
    ],
    ids=["never ends", "deep", "flat within", "many of 500", "no commas", "texts", "no text", "small ones"],
)
def test_16_mib_of_any_body_take_at_most_a_few_seconds(body: bytes) -> None:
    """One step a bracket took 15 s, and the request was answered 503 and repeated."""
    begun = time.process_time()
    for cut in (split, wrapped_in):
        with suppress(InvalidElement):
            cut(body)
    assert time.process_time() - begun < 6
