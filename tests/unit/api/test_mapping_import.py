"""A body of line ends, which has 8 KiB when it is compressed, is refused before its lines are read. If a CSV
file comes as JSON, the answer names the Content-Type to send."""

import gzip
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.api.mapping_import import MAX_BYTES, MAX_LINES, _chunks, _csv_named
from connectors.http.problem import Problem
from connectors.operations.row_files import JSON, Row, rows


class Body:
    """The content of a request, which arrives in pieces."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self, most: int) -> bytes:
        piece, self._body = self._body[:most], self._body[most:]
        return piece


def request_with(body: bytes, encoding: str = "") -> Any:
    return SimpleNamespace(headers={"Content-Encoding": encoding} if encoding else {}, content=Body(body))


@pytest.mark.parametrize("encoding", ["", "gzip"])
async def test_a_body_of_too_many_lines_is_refused(encoding: str) -> None:
    body = b"\n" * MAX_BYTES
    sent = gzip.compress(body, 1) if encoding else body
    read = 0
    with pytest.raises(Problem) as refused:
        async for piece in _chunks(request_with(sent, encoding)):
            read += len(piece)
    assert (refused.value.status, refused.value.reason) == (413, "too_many_rows")
    assert read <= MAX_LINES


async def test_a_body_of_as_many_lines_as_are_allowed_is_read() -> None:
    body = b" \n" * MAX_LINES
    assert b"".join([piece async for piece in _chunks(request_with(body))]) == body


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    "header",
    [
        b"litellm_customer_id,lago_customer_id,lago_organization_id\n",
        b'"lago_customer_id";"litellm_customer_id"\r\n',
    ],
)
async def test_the_header_of_a_csv_file_that_is_read_as_json_is_told_its_content_type(header: bytes) -> None:
    read = [row async for row in _csv_named(rows(_pieces(header, b"a,org_a,tenant\n"), JSON))]
    assert (read[0].line, read[0].wrong) == (1, "not_json")
    assert "`Content-Type: text/csv`" in read[0].detail
    assert read[1] == Row(2, b"a,org_a,tenant")


async def test_rows_of_json_are_not_taken_for_csv() -> None:
    for body in (b'{"litellm_customer_id": "a"}\n', b'[{"litellm_customer_id": "a"}]', b'{"litellm_customer_id": \n'):
        (row,) = [row async for row in _csv_named(rows(_pieces(body), JSON))]
        assert not row.wrong
