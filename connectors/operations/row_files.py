"""Reads rows from a file: CSV with a header, one JSON object a line, or one JSON array of objects.

The file is read as a stream, in bounded memory. A row that cannot be read does not stop the reading of later rows.
The event loop serves other tasks in between, also if all lines are blank or all rows are refused.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Final, NamedTuple

import msgspec

from connectors.ingest.brackets import TEXT, end_of, end_of_nested
from connectors.ingest.rejection_record import InvalidElement
from connectors.operations.csv_table import CsvRow, CsvTable
from schemas.errors import Rejected

JSON, CSV = "json", "csv"
#: The most bytes of one row, and of an array, which is read as a whole.
MAX_ROW: Final = 64 << 10
MAX_ARRAY: Final = 32 << 20
_BOM = b"\xef\xbb\xbf"
#: Bytes of a usual member of an array.
_MOSTLY: Final = 4 << 10
#: After so many lines, and after so many rows, other tasks have a turn. A line takes microseconds; a row that is refused
#: takes half a millisecond.
_LINES_A_TURN, _ROWS_A_TURN = 500, 10
_TOO_LARGE: Final = f"the row has more than {MAX_ROW} bytes in the columns that are read"
_BROKEN: Final = "the array is not JSON from here on, and no later row was read. Was the file cut off?"
_BETWEEN = re.compile(rb"[, \t\r\n]*")
_TEXT = re.compile(b"(?:" + TEXT + b")?", re.DOTALL)
_scan = json.JSONDecoder().raw_decode


class Row(NamedTuple):
    """A row as a JSON object, and the number of its first line, from 1; `wrong`: why it cannot be read, `detail`:
    where.
    """

    line: int
    body: bytes
    wrong: str = ""
    detail: str = ""


async def rows(
    chunks: AsyncIterator[bytes],
    kind: str,
    columns: Collection[str] | None = None,
    delimiter: str = "",
    required: Collection[tuple[str, ...]] = (),
) -> AsyncIterator[Row]:
    """Yield the rows of a file of `kind`. Blank lines, empty cells and columns without a name are left out.

    Args:
        columns, delimiter, required: for CSV, see `CsvTable`. Cells of other columns do not count towards the size of a row.

    Raises:
        Rejected: `bad_csv`, see `CsvTable`; `too_large` for an array above `MAX_ARRAY`.
    """
    number = 0
    async for row in _csv_rows(chunks, columns, delimiter, required) if kind == CSV else _json_rows(chunks):
        yield row
        number += 1
        if number % _ROWS_A_TURN == 0:
            await asyncio.sleep(0)


async def _json_rows(chunks: AsyncIterator[bytes]) -> AsyncIterator[Row]:
    lines = _lines(chunks)
    begun = False
    async for line, text in lines:
        if not begun and text.lstrip()[:1] == b"[":
            for row in _members(line, await _whole(text, lines)):
                yield row
            return
        if text.strip():
            begun = True
            yield _sized(line, text.strip())


async def _lines(chunks: AsyncIterator[bytes], *, marked: bool = False) -> AsyncIterator[tuple[int, bytes]]:
    """Yield (number, line with its line end). A line beyond `MAX_ARRAY` is cut off; it is too large for a row.

    Args:
        marked: keep the byte order mark.
    """
    number, rest = 1, bytearray()
    async for chunk in chunks:
        if number == 1 and not rest and not marked:
            chunk = chunk.removeprefix(_BOM)  # noqa: PLW2901  # the byte order mark is no text
        *whole, last = chunk.split(b"\n")
        for text in whole:
            yield number, bytes(rest) + text + b"\n"
            number, rest = number + 1, bytearray()
            if number % _LINES_A_TURN == 0:
                await asyncio.sleep(0)
        if len(rest) <= MAX_ARRAY:
            rest += last
    if rest:
        yield number, bytes(rest)


async def _whole(first: bytes, lines: AsyncIterator[tuple[int, bytes]]) -> bytes:
    body = bytearray(first)
    async for _, text in lines:
        if len(body) > MAX_ARRAY:
            break
        body += text
    if len(body) > MAX_ARRAY:
        raise Rejected("too_large", f"a JSON array may have {MAX_ARRAY} bytes: give an object a line instead")
    return bytes(body)


def _members(line: int, body: bytes) -> Iterator[Row]:
    """Yield the objects of the array up to the first one that is no JSON, because after it the next object cannot be
    found.
    """
    view, at, told_at = memoryview(body), body.index(b"[") + 1, 0
    while True:
        at = end_of(_BETWEEN, view, at)
        line += body.count(b"\n", told_at, at)
        told_at = at
        if body[at : at + 1] == b"]":
            return
        try:
            end = _end_of_member(view, at)
        except (ValueError, RecursionError, InvalidElement):
            yield Row(line, b"", "not_json", _BROKEN)
            return
        yield _sized(line, body[at:end].decode(errors="replace").encode())
        at = end


def _end_of_member(view: memoryview, at: int) -> int:
    """Return the position after the JSON value that begins at `at`.

    A value above `MAX_ROW` is refused by its size. Its end is found without parsing it, because a megabyte of small objects
    needs forty megabytes.

    Raises:
        ValueError, RecursionError, InvalidElement: it is no JSON.
    """
    for most in (_MOSTLY, MAX_ROW + 1):
        part = bytes(view[at : at + most])
        text = part.decode("utf-8", "surrogateescape")  # broken bytes are counted as they are
        is_cut = at + most < len(view)
        try:
            _, end = _scan(text)
        except ValueError:
            if not is_cut:
                raise
            continue
        if end < len(text) or not is_cut:  # a number may go on behind the part
            return at + len(text[:end].encode("utf-8", "surrogateescape"))
    end = end_of_nested(view, at + 1) if part[:1] in (b"{", b"[") else end_of(_TEXT, view, at)
    if end - at <= MAX_ROW:
        raise ValueError("no JSON")
    return end


async def _csv_rows(
    chunks: AsyncIterator[bytes],
    columns: Collection[str] | None,
    delimiter: str,
    required: Collection[tuple[str, ...]],
) -> AsyncIterator[Row]:
    table = CsvTable(columns, delimiter, required=required)
    async for line, text in _lines(chunks, marked=True):
        for row in table.feed(line, text):
            yield _row(row)
    for row in table.end():
        yield _row(row)


def _row(row: CsvRow) -> Row:
    return Row(row.line, b"", row.wrong, row.detail) if row.wrong else _sized(row.line, msgspec.json.encode(row.cells))


def _sized(line: int, body: bytes) -> Row:
    return Row(line, b"", "row_too_large", _TOO_LARGE) if len(body) > MAX_ROW else Row(line, body)
