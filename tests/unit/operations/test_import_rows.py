"""Import tables written by people: every row has the number of its first line, and a bad row does not affect the
others.
"""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.billing.mapping_bodies import MappingRow
from connectors.operations.import_kinds import SubscriptionRow
from connectors.operations.imports import columns_of, required_of
from connectors.operations.row_files import CSV, JSON, MAX_ARRAY, MAX_ROW, rows
from schemas.errors import Rejected


async def read(body: bytes, kind: str, size: int = 7) -> list[tuple[int, Any]]:
    """(line, object or reason) of every row, read in pieces of `size`."""

    async def fetch_batches() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return [(row.line, row.wrong or json.loads(row.body)) async for row in rows(fetch_batches(), kind)]


async def test_csv_rows_are_objects_with_the_headers_names() -> None:
    body = "\ufeffa, b,\r\n1,Zoë,x\r\n\r\n2,,\r\n".encode()
    assert await read(body, CSV) == [(2, {"a": "1", "b": "Zoë"}), (4, {"a": "2"})]


async def test_a_quoted_cell_may_contain_line_ends_commas_and_quotes() -> None:
    body = b'a,b\n"one\ntwo, ""three""",x\n4,y'
    assert await read(body, CSV) == [(2, {"a": 'one\ntwo, "three"', "b": "x"}), (4, {"a": "4", "b": "y"})]


async def test_an_unreadable_csv_row_is_reported_with_its_line() -> None:
    body = b'a,b\n1,2,3\n4,5\n\xff,6\n7,"8"x\n9\n10,11\n'
    assert await read(body, CSV) == [
        (2, "long_row"),
        (3, {"a": "4", "b": "5"}),
        (4, "not_utf8"),
        (5, "stray_quote"),
        (6, "short_row"),
        (7, {"a": "10", "b": "11"}),
    ]


async def test_only_the_needed_cells_count_for_the_length_of_a_row() -> None:
    long = b"x" * MAX_ROW
    body = b"a,note\n1," + long + b"\n" + long + b",2\n3,4\n"

    async def fetch_batches() -> AsyncIterator[bytes]:
        yield body

    found = [(row.line, row.wrong or json.loads(row.body)) async for row in rows(fetch_batches(), CSV, ("a",))]
    assert found == [(2, {"a": "1"}), (3, "row_too_large"), (4, {"a": "3"})]


async def test_an_unclosed_quote_invalidates_the_rest_of_the_file() -> None:
    """Its lines are reported, and never read as rows."""
    body = b'a\n"' + b"x" * 50 + b"\n" + b"y\n" * 100
    assert await read(body, CSV, 4096) == [(2, "open_quote")]


@pytest.mark.parametrize("body", [b"", b"\n \n", b"\xff\xfe,b\n1,2\n"])
async def test_a_csv_file_without_a_header_is_refused(body: bytes) -> None:
    with pytest.raises(Rejected, match="bad_csv"):
        await read(body, CSV)


async def test_json_lines_are_read_one_object_a_line_and_anything_else_is_the_rows_error() -> None:
    body = b'{"a":1}\n\n  {"a":2}\r\n{"a":3}'
    assert await read(body, JSON) == [(1, {"a": 1}), (3, {"a": 2}), (4, {"a": 3})]


async def test_each_object_of_a_json_array_has_the_line_where_it_begins() -> None:
    body = json.dumps([{"a": 1}, {"a": [2, "]"]}, {"a": "ö"}], indent=1, ensure_ascii=False).encode()
    assert await read(body, JSON) == [(2, {"a": 1}), (5, {"a": [2, "]"]}), (11, {"a": "ö"})]
    assert await read(b"[]", JSON) == []


async def test_after_invalid_json_in_an_array_no_further_row_can_be_read() -> None:
    assert await read(b'[{"a":1},\n{"a":2},\n{"a" 3}, {"a":4}]', JSON) == [
        (1, {"a": 1}),
        (2, {"a": 2}),
        (3, "not_json"),
    ]
    assert await read(b'[{"a":1}', JSON) == [(1, {"a": 1}), (1, "not_json")]
    assert await read(b"[" * 100_000, JSON, 4096) == [(1, "not_json")]


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.integers() | st.text() | st.just("é" * 2100), max_size=3), max_size=5
    )
)
async def test_an_array_has_the_rows_that_json_has(members: list[dict[str, int | str]]) -> None:
    for encoded in (json.dumps(members), json.dumps(members, ensure_ascii=False)):
        found = await read(encoded.encode(), JSON, 1000)
        assert [body for _, body in found] == members


@pytest.mark.parametrize("length", [4095, 4096, 4097, MAX_ROW - 1, MAX_ROW])
async def test_a_member_of_an_array_may_end_anywhere(length: int) -> None:
    text = "x" * (length - len('{"a":""}'))
    number = int("7" * 4000)
    body = b'[{"a":"%b"}, {"a":%d},{"b":[1, {"c":2}]}]' % (text.encode(), number)
    assert await read(body, JSON) == [(1, {"a": text}), (1, {"a": number}), (1, {"b": [1, {"c": 2}]})]


@pytest.mark.parametrize("filling", [b"{},", b'{"":{}},', b'"\\"",', b"[[],1.5],"])
async def test_a_large_member_takes_little_memory(filling: bytes) -> None:
    """Earlier 8 kB of gzip with an array of objects took 280 MiB and a second of the API's event loop."""
    large = b'{"a":[' + filling * (MAX_ARRAY // 4 // len(filling)) + b"0]}"
    body = b"[" + large + b',\n{"a":1}, "' + b"y" * MAX_ROW + b'", {"a":2}]'
    tracemalloc.start()
    try:
        found = await read(body, JSON, len(body))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [(1, "row_too_large"), (2, {"a": 1}), (2, "row_too_large"), (2, {"a": 2})]
    assert peak < 5 * len(body)


async def test_rows_and_arrays_have_a_maximum_length() -> None:
    long = b'{"a":"' + b"x" * MAX_ROW + b'"}'
    assert await read(long + b'\n{"a":1}', JSON, 4096) == [(1, "row_too_large"), (2, {"a": 1})]
    assert await read(b"[" + long + b',\n{"a":1}]', JSON, 4096) == [(1, "row_too_large"), (2, {"a": 1})]
    for body in (b"[" + b" " * MAX_ARRAY, b"[\n" + (b" " * 999 + b"\n") * (MAX_ARRAY // 1000 + 1)):
        with pytest.raises(Rejected, match="too_large"):
            await read(body, JSON, 1 << 20)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=10), st.integers(1, 40))
async def test_rows_are_the_same_for_every_size_of_the_pieces(texts: list[str], size: int) -> None:
    lines = "".join(json.dumps({"a": text}) + "\n" for text in texts).encode()
    found = [body for _, body in await read(lines, JSON, size)]
    assert found == [{"a": text} for text in texts]


async def _at_once(body: bytes) -> AsyncIterator[bytes]:
    yield body


@pytest.mark.parametrize(
    ("body", "kind", "turns"),
    [
        (b"\n" * 20_000, JSON, 30),
        (b" \n" * 20_000, JSON, 30),
        (b"a,b\n" + b"\n" * 20_000, CSV, 30),
        (b"[" + b"1," * 999 + b"1]", JSON, 90),
        (b"{\n" * 1_000, JSON, 90),
        (b"a,b\n" + b"1\n" * 1_000, CSV, 90),
    ],
    ids=["blank lines", "lines of spaces", "blank lines of a table", "a long array", "short lines", "short rows"],
)
async def test_other_tasks_have_turns_while_a_body_of_many_lines_or_rows_is_read(
    body: bytes, kind: str, turns: int
) -> None:
    counted = 0

    async def count() -> None:
        nonlocal counted
        while True:
            counted += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    try:
        async for _ in rows(_at_once(body), kind):
            pass
    finally:
        counting.cancel()
    assert counted > turns


async def test_rows_after_the_damaged_one_of_an_array_are_said_to_be_unread() -> None:
    async def whole() -> AsyncIterator[bytes]:
        yield b'[{"a": 1}, {"b'

    damaged = [row async for row in rows(whole(), JSON)][-1]
    assert (damaged.wrong, damaged.detail) == (
        "not_json",
        "the array is not JSON from here on, and no later row was read. Was the file cut off?",
    )


async def test_a_table_without_a_column_that_every_row_needs_is_refused_once() -> None:
    async def whole() -> AsyncIterator[bytes]:
        yield b"external_customer_id,plan\n" + b"a,b\n" * 1000

    required = required_of(SubscriptionRow)
    assert required == (("org_id", "external_id", "external_customer_id"), ("plan_code",))
    with pytest.raises(Rejected, match="the first line has no column plan_code: every row needs it"):
        [row async for row in rows(whole(), CSV, columns_of(SubscriptionRow), required=required)]
    with pytest.raises(Rejected, match=r"no column org_id \(or external_id, external_customer_id\)"):
        [row async for row in rows(only(b"plan_code\nx\n"), CSV, columns_of(SubscriptionRow), required=required)]


async def only(text: bytes) -> AsyncIterator[bytes]:
    yield text


MAPPING = "litellm_customer_id,lago_customer_id,lago_organization_id"


@pytest.mark.parametrize(
    "name", ["effective_form", "effectivefrom", "Effective_From", "is_activ", "external_subscription_i"]
)
async def test_a_misspelt_column_that_changes_what_a_row_means_is_refused_before_any_row(name: str) -> None:
    """Earlier it was ignored: the org paid from another moment on, or a mapping that was switched off paid."""

    async def body() -> AsyncIterator[bytes]:
        yield f"{MAPPING},{name}\na,b,c,2026-01-01\n".encode()

    with pytest.raises(
        Rejected, match=f"bad_csv: the column {name} is unknown: did you mean [a-z_]+\\? Rename it, or remove it"
    ):
        [row async for row in rows(body(), CSV, columns_of(MappingRow))]


@pytest.mark.parametrize(
    "name",
    ["corrected", "note", "updated_at", "subscription", "deleted", "customer_id", "effective_from,effective_form"],
)
async def test_other_columns_of_an_export_are_ignored(name: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield f"{MAPPING},{name}\na,b,c,{'d,' * name.count(',')}e\n".encode()

    assert len([row async for row in rows(body(), CSV, columns_of(MappingRow))]) == 1
