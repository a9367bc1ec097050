"""`POST /customers/mappings/import`: many mappings in one body; each row is accepted or refused separately."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from aiohttp import web
from pydantic import BaseModel

from connectors.api.mappings import WRITE, RequestGuard
from connectors.billing.mapping_bodies import MappingRow
from connectors.billing.mappings import Mappings
from connectors.http.content_encoding import Unpacker
from connectors.http.endpoint import AuthorizedRequest, Endpoint
from connectors.http.problem import CLOSES, Problem
from connectors.operations.import_kinds import MappingRows
from connectors.operations.imports import Import, columns_of, required_of
from connectors.operations.row_files import CSV, JSON, Row, rows

#: Limits of one body. The command `meterbridge import` has none.
MAX_ROWS, MAX_BYTES = 10_000, 8 << 20
#: Lines of one body, blank ones and those inside of rows included: 8 MiB of line ends have 8 KiB when they are compressed, and
#: reading them takes seconds.
MAX_LINES: Final = 200_000
_AT_ONCE = 100
#: A column that every row has, and the sentence to a CSV file that is read as JSON.
_A_COLUMN: Final = b"litellm_customer_id"
_AS_CSV: Final = "the row is no JSON object. If the body is CSV, send it with the header `Content-Type: text/csv`"
_CHUNK, _CHUNK_S = 1 << 16, 30.0


class ImportQuery(BaseModel):
    """`dry_run`: only say what the import would do.

    Fields:
        dry_run: true: only say what the import would do.
    """

    dry_run: bool = False


class RefusedRow(BaseModel):
    """A refused row: the line in which it begins, and in `errors` its wrong fields.

    Fields:
        line: the line in which the row begins, the first is 1.
        errors: each wrong field, and what is wrong.
    """

    line: int
    reason: str
    detail: str
    errors: list[dict[str, str]] = []


class RowsWarningShown(BaseModel):
    """What is probably wrong with rows that were taken.

    Fields:
        org_id: the org of these rows; null = several.
        rows: the number of its rows.
        warning: a sentence for people.
    """

    org_id: str | None
    rows: int
    warning: str


class ImportedShown(BaseModel):
    """How many rows had which result; `errors` has the first 1000 refused ones.

    Fields:
        read: rows that were read.
        created: customers that had no mapping before.
        changed: mappings that were changed.
        unchanged: rows that say what is already so.
        refused: rows that were not taken.
        errors: the first 1000 refused rows.
        warnings: the orgs of taken rows that Lago does not know.
    """

    read: int
    created: int
    changed: int
    unchanged: int
    refused: int
    errors: list[RefusedRow]
    warnings: list[RowsWarningShown]


def import_endpoint(mappings: Mappings) -> Endpoint:
    """The import. A body of Content-Type `text/csv` is CSV; every other one is JSON: an object per line, or an array."""

    async def take(authorized: AuthorizedRequest) -> web.Response:
        def refusing(problem: Problem) -> None:
            if problem.status == web.HTTPForbidden.status_code:
                authorized.access.refused(authorized.request, problem)

        kind = CSV if authorized.request.content_type == "text/csv" else JSON
        guard = RequestGuard(authorized, mappings)
        await mappings.ready()
        job = Import(MappingRows(mappings, guard, dry_run=authorized.query.dry_run), _AT_ONCE, refusing=refusing)
        read = rows(_chunks(authorized.request), kind, columns_of(MappingRow), required=required_of(MappingRow))
        done = await job.run(_bounded(read if kind == CSV else _csv_named(read)))
        return web.Response(body=msgspec.json.encode(done.as_object()), content_type="application/json")

    return Endpoint(
        "POST",
        "/customers/mappings/import",
        WRITE,
        "Set many mappings from CSV, NDJSON or a JSON array; repeating it changes nothing.",
        take,
        query=ImportQuery,
        answers={200: ImportedShown},
        sees_to_orgs=True,
    )


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    size = lines = 0
    unpacker = Unpacker(request.headers.get("Content-Encoding", ""))
    while True:
        try:
            async with asyncio.timeout(_CHUNK_S):
                chunk = await request.content.read(_CHUNK)
        except TimeoutError:
            raise Problem(408, "body_too_slow", "the body did not arrive in time", CLOSES) from None
        if not chunk:
            unpacker.end()
            return
        for piece in unpacker.pieces(chunk):
            size += len(piece)
            if size > MAX_BYTES:
                detail = f"a body may have {MAX_BYTES} bytes; the rows before this are done"
                raise Problem(413, "body_too_large", detail, CLOSES)
            lines += piece.count(b"\n")
            if lines > MAX_LINES:
                detail = f"a body may have {MAX_LINES} lines; rows before this are done"
                raise Problem(413, "too_many_rows", detail, CLOSES)
            yield piece
        await asyncio.sleep(
            0
        )  # chunks that have already arrived are read without a pause, so other requests need a turn


async def _csv_named(rows: AsyncIterator[Row]) -> AsyncIterator[Row]:
    """Yield the rows of JSON. The header of a CSV file is refused with the Content-Type that it needs."""
    async for row in rows:
        is_header = row.body[:1] not in (b"{", b"[") and _A_COLUMN in row.body
        yield Row(row.line, b"", "not_json", _AS_CSV) if is_header else row


async def _bounded(rows: AsyncIterator[Row]) -> AsyncIterator[Row]:
    number = 0
    async for row in rows:
        number += 1
        if number > MAX_ROWS:
            detail = f"a body may have {MAX_ROWS} rows; those before line {row.line} are done"
            raise Problem(413, "too_many_rows", detail, CLOSES)
        yield row
