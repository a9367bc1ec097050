"""A body of line ends, which has 8 KiB when it is compressed, is refused before its lines are read."""

import gzip
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.api.mapping_import import MAX_BYTES, MAX_LINES, _chunks
from connectors.http.problem import Problem


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
