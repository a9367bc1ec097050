"""A response of any size is read in bounded memory, whatever server sends it."""

import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from connectors.lago import bounded_response
from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected, LagoUnavailable
from connectors.lago.events import MOVED

MAX = 1 << 20


class Endless(httpx.AsyncByteStream):
    def __init__(self, piece: bytes) -> None:
        self.piece = piece
        self.sent = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(40):
            self.sent += len(self.piece)
            yield self.piece

    async def aclose(self) -> None:
        self.closed = True


def client(answer: httpx.Response) -> LagoClient:
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer))
    return LagoClient(http, "http://lago.test", "key")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_response, "MAX_BYTES", MAX)


@pytest.mark.parametrize(
    ("piece", "headers"),
    [(b" " * 65_536, {}), (gzip.compress(bytes(MAX + 1), mtime=0), {"Content-Encoding": "gzip"})],
    ids=["plain", "gzip"],
)
async def test_a_response_that_is_too_large_is_not_read_to_its_end(piece: bytes, headers: dict[str, str]) -> None:
    """Earlier the process read all of it, and was killed for its memory."""
    endless = Endless(piece)
    lago = client(httpx.Response(200, headers=headers, stream=endless))
    with pytest.raises(LagoUnavailable) as caught:
        await lago.post_batch(b"{}")
    assert (caught.value.reason, caught.value.detail) == ("no_answer", "ResponseTooLarge")
    assert endless.closed and endless.sent <= MAX + len(piece)


async def test_a_packed_response_is_read_as_before() -> None:
    body: Any = b'{"events": []}' + b" " * (MAX - 14)
    headers = {"Content-Encoding": "gzip", "X-RateLimit-Reset": "7"}
    answer = await client(httpx.Response(200, headers=headers, content=gzip.compress(body))).post_batch(b"{}")
    assert (answer.status, answer.body, answer.headers["x-ratelimit-reset"]) == (200, body, "7")


async def test_a_number_of_pages_that_is_too_large_ends_with_the_first_empty_page() -> None:
    """Earlier Lago was asked for each of a billion pages."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["page"])
        assert len(asked) < 10
        return httpx.Response(200, json={"events": [], "meta": {"total_pages": 10**9, "total_count": 5}})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    lago = LagoClient(http, "http://lago.test", "key")
    assert await lago.events_between("s", "tokens", 0, 10**6, 1000) == []
    assert await lago.read_events_of("s", "tokens", 0, 10**6, 1000, lambda _: None) == MOVED
    assert asked == ["1", "1"]


@pytest.mark.parametrize("codes", [5, True, None, {"taken": 1}, "taken"])
async def test_error_details_of_an_unexpected_form_say_nothing(codes: Any) -> None:
    refused = httpx.Response(422, json={"status": 422, "code": "validation_errors", "error_details": {"id": codes}})
    with pytest.raises(LagoRejected) as caught:
        await client(refused).plans()
    assert not caught.value.says("id", "taken")
