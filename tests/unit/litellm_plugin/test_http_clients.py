"""A response that does not end, or that comes byte by byte, holds neither a call of the proxy nor the posting of records."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from meterbridge_litellm.http_clients import AsyncHttp, BlockingHttp
from tests.support.eventually import PATIENCE, within

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


@asynccontextmanager
async def serving(piece: bytes, pause_s: float, head: bytes = HEAD) -> AsyncIterator[str]:
    """Serve a response that does not end: `piece` again and again."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(head)
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except OSError:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def one_call(url: str, timeout_s: float) -> None:
    async with AsyncHttp(timeout_s) as http:
        await http.post(url, json={})


def one_post(url: str, timeout_s: float) -> None:
    with BlockingHttp(timeout_s) as http:
        http.post(url, content=b"[]")


async def in_thread(url: str, timeout_s: float) -> None:
    await asyncio.to_thread(one_post, url, timeout_s)


@pytest.mark.parametrize("asked", [one_call, in_thread])
async def test_a_response_that_comes_byte_by_byte_is_given_up_in_time(
    asked: Callable[..., "asyncio.Future[None]"],
) -> None:
    async with serving(b" ", 0.02) as url, within(10):
        with pytest.raises(httpx.ReadTimeout):
            await asked(url, 0.3)


@pytest.mark.parametrize("asked", [one_call, in_thread])
async def test_neither_a_call_nor_a_post_waits_for_a_head_that_comes_byte_by_byte(
    asked: Callable[..., "asyncio.Future[None]"],
) -> None:
    """In an earlier version such a head held the thread that posts records without end."""
    async with serving(b"X-A: b\r\n", 0.02, HEAD[:-2]) as url, within(10):
        with pytest.raises(httpx.ReadTimeout):
            await asked(url, 0.3)


async def test_a_client_posts_again_after_a_response_that_was_too_slow() -> None:
    answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"

    def posts(slow: str, quick: str) -> int:
        with BlockingHttp(PATIENCE) as http:
            with pytest.raises(httpx.ReadTimeout):
                http.post(slow, content=b"[]", timeout=0.3)
            return http.post(quick, content=b"[]").status_code

    async with serving(b"X", 0.02, HEAD[:-2]) as slow, serving(answer, 3600, b"") as quick, within(10):
        assert await asyncio.to_thread(posts, slow, quick) == 202


@pytest.mark.parametrize("asked", [one_call, in_thread])
async def test_a_response_without_an_end_needs_little_memory(asked: Callable[..., "asyncio.Future[None]"]) -> None:
    async with serving(b" " * 65_536, 0.0) as url, within(20):
        with pytest.raises(httpx.ReadError, match="more than"):
            await asked(url, 15.0)
