"""Splitting a body into elements: it is split exactly where JSON separates them, no matter what the elements contain."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.ingest.body_splitter import MAX_ELEMENTS, Element, split, wrapped_in
from connectors.ingest.rejection_record import InvalidElement

SPACE = st.text(" \t\r\n", max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


def _parsed(elements: list[Element]) -> list[Any]:
    return [json.loads(bytes(memoryview(element))) for element in elements]


@given(st.lists(VALUES, max_size=6), SPACE, st.booleans(), st.sampled_from([None, 1]))
def test_an_array_is_split_into_its_elements(values: list[Any], space: str, ascii_: bool, indent: int | None) -> None:
    body = space + json.dumps(values, ensure_ascii=ascii_, indent=indent) + space
    assert _parsed(split(body.encode())) == values


@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4), st.sampled_from([None, 1]))
def test_an_element_that_is_no_strict_json_does_not_affect_the_others(
    before: list[Any], after: list[Any], indent: int | None
) -> None:
    """NaN, a lone surrogate or any nesting in an element does not move the boundaries of its neighbours."""
    odd = ['{"spend": NaN}', '{"text": "\\ud800 ]}\\" ,["}', '{"deep":' + "[{}," * 9_000 + "0" + "]" * 9_000 + "}"]
    written = [json.dumps(value, indent=indent) for value in before] + odd
    written += [json.dumps(value, indent=indent) for value in after]
    elements = [bytes(memoryview(element)).strip() for element in split(f"[{', '.join(written)}]".encode())]
    assert elements == [text.encode() for text in written]


@given(st.lists(OBJECTS, min_size=1, max_size=5), st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]), st.booleans())
def test_ndjson_is_split_at_line_ends(objects: list[Any], end: str, closed: bool) -> None:
    body = end.join(json.dumps(one) for one in objects) + (end if closed else "")
    assert _parsed(split(body.encode())) == objects


def test_ndjson_is_recognised_also_if_its_first_line_is_no_strict_json() -> None:
    assert len(split(b'{"spend":NaN}\n{"id":2}\n{"id":3')) == 3
    assert len(split(b'null\n{"id":2}')) == 2


@given(OBJECTS, st.sampled_from([None, 1, "\t"]))
def test_one_object_is_one_element_also_over_several_lines(value: dict[str, Any], indent: int | str | None) -> None:
    assert _parsed(split(json.dumps(value, indent=indent).encode())) == [value]


@pytest.mark.parametrize("body", ['{\n"id":1,\n"a":[\n1,\n2\n]\n', '{"id":1', '{"id":1}}', "tru", "", " \n "])
def test_a_truncated_element_stays_in_one_piece_and_the_parser_refuses_it(body: str) -> None:
    assert [bytes(memoryview(element)) for element in split(body.encode())] == [body.encode()]


@pytest.mark.parametrize("body", ["[", '[{"id":1}', '[{"id":"1}]', "[[]", '[{"id":1}] 2', "[NaN] 2", '[{"a":NaN}'])
def test_an_array_that_ends_before_the_body_does_is_refused_as_a_whole(body: str) -> None:
    with pytest.raises(InvalidElement) as caught:
        split(body.encode())
    assert caught.value.reason == "not_json"


@pytest.mark.parametrize("spend", ["1", "NaN"])
@pytest.mark.parametrize(
    ("body", "cut"),
    [
        ('{"events":[%s,%s]}', 2),
        ('{"event":%s, "x":%s}', 1),
        ('{"x":%s, "ev\\u0065nts":[%s]}', 1),
        (' {"x":",[", "events" : [ %s , null, %s ] }\n', 3),
        ('{"events":%s,"y":%s}', 1),
    ],
)
def test_a_wrapper_is_removed(body: str, cut: int, spend: str) -> None:
    element = '{"spend":%s}' % spend  # noqa: UP031  # braces are the point
    inner = wrapped_in((body % (element, element)).encode())
    assert inner is not None
    elements = split(inner)
    assert len(elements) == cut
    assert bytes(memoryview(elements[0])).strip() == element.encode()
    assert bytes(memoryview(elements[-1])).strip() == element.encode()


@pytest.mark.parametrize(
    ("body", "is_wrapper"),
    [
        ('{"events":[{"id":1},{"id":2}]}', True),
        ('{"records":[{"id":1}],"id":"envelope","type":"usage"}', True),
        ('{"data":{"id":1,"spend":2},"id":"envelope"}', True),
        ('{"usage":{"id":1}}', True),
        ('{"usage":{"total_tokens":1},"id":"a call"}', False),
        ('{"events":[{"name":"retry"}],"id":"a call"}', False),
        ('{"events":[{"id":"e"}],"id":"a call","response_cost":1}', False),
        ('{"data":"text"}', False),
        ('{"specversion":"1.0","id":1,"data":{"id":2}}', False),
        ('{"id":1}', False),
        ('[{"events":[]}]', False),
    ],
)
def test_an_object_with_its_own_cost_is_a_call_and_no_envelope(body: str, is_wrapper: bool) -> None:
    assert (wrapped_in(body.encode()) is not None) is is_wrapper


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "first", ['{"id": "cut', '{"id":"x","metadata":{', 'x","spend":1}', '{"id":"x",', "nonsense", '{"a":tru}']
)
@pytest.mark.parametrize("others", [1, 3])
def test_a_damaged_first_line_of_ndjson_is_one_element(first: str, end: str, others: int) -> None:
    lines = [first, *(f'{{"id":"{number}","spend":1}}' for number in range(others))]
    elements = [bytes(memoryview(element)).decode().strip() for element in split(end.join(lines).encode())]
    assert elements == lines


@pytest.mark.parametrize("body", ['{"events":[\n{"id":1}\n', '{"a":\n{"id":1}', '{\n"a": {\n"b": 1},\n"c": tru\n}'])
def test_a_truncated_object_is_not_read_as_ndjson(body: str) -> None:
    assert len(split(body.encode())) == 1


def test_a_byte_order_mark_before_an_array_is_ignored() -> None:
    assert _parsed(split(b'\xef\xbb\xbf[{"id":1}]')) == [{"id": 1}]


@pytest.mark.parametrize(
    "body", [b"[" + b"1," * MAX_ELEMENTS + b"1]", b"[" + b"NaN," * MAX_ELEMENTS + b"1]", b"null\n" * (MAX_ELEMENTS + 1)]
)
def test_the_number_of_elements_is_bounded_for_every_form_of_body(body: bytes) -> None:
    with pytest.raises(InvalidElement) as caught:
        split(body)
    assert caught.value.reason == "too_many_elements"


def test_a_body_of_commas_takes_almost_no_memory() -> None:
    """It has 1.5 million elements in 6 MB; split one by one they would take fifty times that."""
    body = b"[" + b"NaN," * 1_500_000 + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(InvalidElement):
            split(body)
        assert tracemalloc.get_traced_memory()[1] < 100 << 20
    finally:
        tracemalloc.stop()
