"""Rows of a table that somebody made: CSV with a header, JSON objects a line, or one JSON array of objects.

Read as a stream and in bounded memory; a row that cannot be read costs its neighbours nothing.
"""

import csv
import json
from collections.abc import AsyncIterator, Iterator
from typing import Final, NamedTuple

import msgspec

from schemas.errors import Rejected

JSON, CSV = "json", "csv"
#: Of one row, and of an array, which is read whole.
MAX_ROW: Final = 64 << 10
MAX_ARRAY: Final = 32 << 20
_BOM = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """A row as a JSON object, and the line it begins in, from 1; `wrong`: why it cannot be read."""

    line: int
    body: bytes
    wrong: str = ""


async def rows(chunks: AsyncIterator[bytes], kind: str) -> AsyncIterator[Row]:
    """The rows of a file of `kind`; blank lines are skipped, empty cells and columns without a name left out.

    Raises:
        Rejected: `bad_csv` for no UTF-8 or no header, `too_large` for an array above `MAX_ARRAY`.
    """
    lines = _lines(chunks)
    if kind == CSV:
        async for row in _csv_rows(lines):
            yield row
        return
    begun = False
    async for line, text in lines:
        if not begun and text.lstrip()[:1] == b"[":
            for row in _members(line, await _whole(text, lines)):
                yield row
            return
        if text.strip():
            begun = True
            yield _sized(line, text.strip())


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """(number, line with its end); what is longer than a row may be is cut off, and no row any more."""
    number, rest = 1, bytearray()
    async for chunk in chunks:
        if number == 1 and not rest:
            chunk = chunk.removeprefix(_BOM)  # noqa: PLW2901  # a mark at the beginning of the first line is no text
        *whole, last = chunk.split(b"\n")
        for text in whole:
            yield number, bytes(rest) + text + b"\n"
            number, rest = number + 1, bytearray()
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
    """The array's objects; after the first that is no JSON nothing can be told apart."""
    text, scan = body.decode(errors="replace"), json.JSONDecoder().raw_decode
    at, told_at = text.index("[") + 1, 0
    while True:
        while text[at : at + 1] in (",", " ", "\t", "\r", "\n") and at < len(text):
            at += 1
        line += text.count("\n", told_at, at)
        told_at = at
        if text[at : at + 1] == "]":
            return
        try:
            _, end = scan(text, at)
        except (ValueError, RecursionError):
            yield Row(line, b"", "not_json")
            return
        yield _sized(line, text[at:end].encode())
        at = end


async def _csv_rows(lines: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[Row]:
    header: list[str] = []
    async for line, record in _records(lines):
        if header and len(record) > MAX_ROW:
            yield _sized(line, record)
            continue
        try:
            cells = next(csv.reader([record.decode()], strict=True), [])
        except (UnicodeDecodeError, csv.Error) as error:
            if not header:
                raise Rejected("bad_csv", f"line {line}: {type(error).__name__}") from error
            yield Row(line, b"", "bad_row")
            continue
        if not header:
            header = [name.strip() for name in cells]
        elif len(cells) > len(header):
            yield Row(line, b"", "bad_row")
        elif any(cells):
            named = zip(header, cells, strict=False)
            yield _sized(line, msgspec.json.encode({name: cell for name, cell in named if name and cell}))
    if not header:
        raise Rejected("bad_csv", "there is no header line")


async def _records(lines: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[tuple[int, bytes]]:
    """Lines, joined while a quote is open (RFC 4180); one that stays open ends with a row's length."""
    begin, record = 0, b""
    async for line, text in lines:
        begin, record = begin or line, record + text
        if record.count(b'"') % 2 == 0 or len(record) > MAX_ROW:
            if record.strip():
                yield begin, record
            begin, record = 0, b""
    if record.strip():
        yield begin, record


def _sized(line: int, body: bytes) -> Row:
    return Row(line, b"", "row_too_large") if len(body) > MAX_ROW else Row(line, body)
