"""Reads calls from files: one JSON element a line, or CSV whose columns have the names of the flat shape's fields.

A value is never guessed: a damaged row, an Excel date or a malformed number is refused.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO, Final, get_args

import msgspec

from connectors.ingest.rejection_record import InvalidElement
from connectors.operations.csv_table import UTF16, CsvRow, CsvTable
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected
from schemas.moments import parse_us
from schemas.reasons import BAD_NUMBER
from schemas.wire import TAGS, Call

BAD_TIME, EXCEL, TOO_LONG, NOT_UTF8 = "bad_time", "excel_value", "line_too_long", "not_utf8"
_FIELDS: Final = {field.name: get_args(field.type) for field in msgspec.structs.fields(Call)}
_NUMBERS: Final = frozenset(name for name, of in _FIELDS.items() if Decimal in of or (float in of and str not in of))
_TIMES: Final = frozenset({"startTime", "endTime", "timestamp"})
_SWITCHES: Final = frozenset(name for name, of in _FIELDS.items() if bool in of)
#: Columns that are read; `metadata` and the tags hold JSON as text.
_COLUMNS: Final = frozenset(_FIELDS) - {"properties"} | {TAGS}
_MAX_LINE: Final = 8 << 20
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
#: Matches an id that a spreadsheet has rounded as a number: `1.23457E+15`.
_ROUNDED: Final = re.compile(r"\d(\.\d+)?E\+\d+")
#: A spreadsheet counts days from 1900. Read as seconds, its number for today lies in 1970, and is refused.
_EARLIEST_S: Final = 100_000_000
_SHOWN: Final = 100


class _Ids(msgspec.Struct, gc=False):
    """The members that name an element."""

    id: str | int | None = None
    request_id: str | int | None = None
    litellm_call_id: str | int | None = None


_ids = msgspec.json.Decoder(_Ids).decode


class RefusedElement(bytes):
    """An element that is refused before it is read. Its bytes are JSON with the ids that name it."""

    reason: str
    detail: str


def unreadable(names: dict[str, Any], reason: str, detail: str) -> RefusedElement:
    """Make a refused element with the ids that are in `names`."""
    element = RefusedElement(
        msgspec.json.encode({name: names[name] for name in ("id", "litellm_call_id") if name in names})
    )
    element.reason, element.detail = reason, detail
    return element


def readable(element: bytes) -> bytes:
    """Return the element. Raises: InvalidElement: it is a `RefusedElement`."""
    if isinstance(element, RefusedElement):
        raise InvalidElement(element.reason, element.detail)
    return element


def place_of(place: str, element: bytes, refused: InvalidElement | None = None) -> str:
    """Describe the place of an element, with its request id if it can be read, and with the detail of its refusal."""
    try:
        ids = _ids(element)
    except UNDECODABLE:
        ids = _Ids()
    name = ids.id or ids.request_id or ids.litellm_call_id
    named = f"{place}, request {str(name)[:_SHOWN]}" if name else place
    return f"{named} ({refused.detail})" if refused is not None and refused.detail else named


def json_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, element) for every line that is not blank.

    Raises:
        Rejected: `bad_jsonl`: the file is UTF-16.
    """
    for number, line in enumerate(_lines(file), 1):
        if number == 1 and line.startswith(UTF16):
            raise Rejected("bad_jsonl", "the file is UTF-16: save it in UTF-8")
        if len(line) > _MAX_LINE:
            yield number, unreadable({}, TOO_LONG, f"a line may have {_MAX_LINE} bytes")
        elif stripped := line.strip():
            yield number, stripped


def csv_rows(file: BinaryIO, delimiter: str = "") -> Iterator[tuple[int, bytes]]:
    """Yield (line number, element) for every row. Empty cells are left out; unknown columns of any size are ignored.

    Raises:
        Rejected: `bad_csv`, see `CsvTable`.
    """
    table = CsvTable(_COLUMNS, delimiter, (*sorted(_TIMES), "spend"))
    for number, line in enumerate(file, 1):
        for row in table.feed(number, line):
            yield row.line, _element(row, table.header)
    for row in table.end():
        yield row.line, _element(row, table.header)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines. A line that is too long is cut off one byte above the limit."""
    while line := file.readline(_MAX_LINE + 1):
        yield line
        while len(line) > _MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(_MAX_LINE + 1)


def _element(row: CsvRow, header: list[str]) -> bytes:
    known: dict[str, Any] = {}
    fault = (row.wrong, row.detail) if row.wrong else None
    for name, cell in row.cells.items():
        value = cell.strip()
        field = _field(name, header)
        if value:
            known[field], wrong = _value(field, value)
            fault = fault or ((wrong, name) if wrong else None)
    return msgspec.json.encode(known) if fault is None else unreadable(known, *fault)


def _field(column: str, header: list[str]) -> str:
    """Map a column to its field: LiteLLM's table and its exports have other names for two fields."""
    if column == "request_id" and "id" not in header:
        return "id"
    return "user_id" if column == "user" and "spend" in header else column


def _value(field: str, value: str) -> tuple[Any, str]:
    """Return the value for JSON, and the reason if the value is wrong."""
    if field in _NUMBERS:
        return (msgspec.Raw(value.encode()), "") if _NUMBER.fullmatch(value) else (value, BAD_NUMBER)
    if field in _TIMES:
        return _moment(value)
    if field in _SWITCHES and value.lower() in ("true", "false", "t", "f"):
        return value.lower().startswith("t"), ""
    return value, EXCEL if field.endswith("id") and _ROUNDED.fullmatch(value) else ""


def _moment(value: str) -> tuple[str, str]:
    try:
        us = parse_us(value)
    except Rejected:
        return value, BAD_TIME
    return value, BAD_TIME if us < _EARLIEST_S * 1_000_000 else ""
