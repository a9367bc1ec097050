"""Calls out of files: an element of JSON a line, or rows of CSV whose columns are named as the flat shape's fields."""

import csv
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from schemas.errors import Rejected
from schemas.wire import Call

#: Columns that are ids and words, whatever they look like; all others that look like a number are one.
_TEXT = frozenset(
    name for name in Call.__struct_fields__ if name.endswith(("id", "key", "alias", "hash", "user", "model", "status"))
) | {"model_group", "call_type", "custom_llm_provider", "provider", "startTime", "endTime", "timestamp"}
_MAX_LINE = 8 << 20


def json_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(line number, element) of every line that is not blank; one that is too long is cut and will be refused."""
    for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
        if stripped := line.strip():
            yield number, stripped


def csv_rows(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(line number, element) of every row; empty cells are absent, unknown columns are ignored.

    Raises:
        Rejected: `bad_csv`: it is no UTF-8, or has no header.
    """
    lines = (line.decode("utf-8-sig" if number == 0 else "utf-8") for number, line in enumerate(file))
    rows = csv.DictReader(lines)
    try:
        for row in rows:
            yield rows.line_num, _element(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise Rejected("bad_csv", f"line {rows.line_num + 1}: {type(error).__name__}") from error


def _element(row: dict[str | Any, str | Any]) -> bytes:
    known: dict[str, Any] = {}
    for name, value in row.items():
        if name == "request_id" and "id" not in row:
            name = "id"  # noqa: PLW2901  # as LiteLLM's table and its exports call it
        if name == "user" and "spend" in row:
            name = "user_id"  # noqa: PLW2901  # likewise
        if value and name in Call.__struct_fields__ and name not in ("metadata", "properties"):
            known[name] = value if name in _TEXT else _number_or_text(value)
    return msgspec.json.encode(known)


def _number_or_text(value: str) -> Any:
    try:
        msgspec.json.decode(value, type=float)
    except (msgspec.DecodeError, ValueError):
        return value
    return msgspec.Raw(value.encode())
