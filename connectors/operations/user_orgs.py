"""Reads the org of each user from JSON, from CSV, or with an SQL query.

Columns or members: `user_id`, `org_id`, and optionally `org_name` and `email`, by default those of the user's customer.
"""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from connectors.operations.csv_table import CsvRow, CsvTable
from connectors.postgres.pool import Database
from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected

COLUMNS = ("user_id", "org_id", "org_name", "email")
MAX_ROWS = 1_000_000


class UserOrg(msgspec.Struct, frozen=True):
    """One user and its org; `where` names the row. Texts are trimmed; a missing text is `""`."""

    user_id: str
    org_id: str
    org_name: str = ""
    email: str = ""
    where: str = ""

    def at(self, where: str) -> "UserOrg":
        """Return a copy with the name of its row."""
        return msgspec.structs.replace(self, where=where)


def read_file(path: Path) -> list[UserOrg]:
    """Read a file: JSON (a list of objects, or an object by user id), or else CSV with a header.

    Raises:
        Rejected: `bad_mapping_file`: the file is neither of them, or lacks a column.
        OSError
    """
    text = path.read_bytes()
    if text.lstrip()[:1] in (b"[", b"{"):
        return _of_json(text)
    return _of_csv(text)


async def read_query(url: str, query: str) -> list[UserOrg]:
    """Return the rows of one SELECT, run in a read-only transaction.

    Raises:
        Rejected: `bad_mapping_sql`: Postgres refuses the query, or the result lacks a column.
        Unavailable: see `connectors.postgres.errors.decisions`.
    """
    with Database(url, size=1) as database:
        async with database.connection() as connection:
            try:
                async with connection.transaction(readonly=True):
                    rows = await connection.fetch(query)  # the protocol allows only one statement
            except (asyncpg.SyntaxOrAccessError, asyncpg.InvalidTransactionStateError, asyncpg.DataError) as error:
                raise Rejected("bad_mapping_sql", type(error).__name__) from error
    if rows and not {"user_id", "org_id"} <= set(rows[0].keys()):
        raise Rejected("bad_mapping_sql", "the query must have the columns user_id and org_id")
    return _entries((f"row {number}", dict(row)) for number, row in enumerate(rows, 1))


def _of_json(text: bytes) -> list[UserOrg]:
    try:
        entries = msgspec.json.decode(text, type=list[dict[str, Any]] | dict[str, dict[str, Any]])
    except UNDECODABLE as error:
        detail = "JSON: a list of objects, or an object of objects by user id"
        raise Rejected("bad_mapping_file", detail) from error
    if isinstance(entries, dict):
        entries = [{"user_id": user_id, **entry} for user_id, entry in entries.items()]
    return _entries((f"entry {number}", entry) for number, entry in enumerate(entries, 1))


def _of_csv(text: bytes) -> list[UserOrg]:
    table, csv_rows = CsvTable(COLUMNS), list[CsvRow]()
    try:
        for number, line in enumerate(io.BytesIO(text), 1):
            csv_rows += table.feed(number, line)
        csv_rows += table.end()
    except Rejected as error:
        raise Rejected("bad_mapping_file", error.detail) from error
    if not {"user_id", "org_id"} <= set(table.header):
        raise Rejected("bad_mapping_file", "CSV needs a header with user_id and org_id")
    for row in csv_rows:
        if row.wrong:  # if one user were left out, it would be billed as before; so the whole file is refused
            raise Rejected("bad_mapping_file", f"line {row.line}: {row.wrong}: {row.detail}")
    return _entries((f"line {row.line}", row.cells) for row in csv_rows)


def _entries(rows: Iterable[tuple[str, Mapping[str | Any, Any]]]) -> list[UserOrg]:
    entries = [UserOrg(**{name: _text(row.get(name)) for name in COLUMNS}).at(where) for where, row in rows]
    if len(entries) > MAX_ROWS:
        raise Rejected("bad_mapping_file", f"more than {MAX_ROWS} rows")
    return entries


def _text(value: Any) -> str:
    """Convert an id to text: it may be a number in JSON and SQL, or a UUID in SQL."""
    return "" if value is None else str(value).strip()
