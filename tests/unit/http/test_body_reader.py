"""Reading request bodies: an authenticated sender always has room, no matter what unauthenticated senders announce or
send.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from connectors.http.body_reader import BodyReader
from connectors.http.problem import Problem


@dataclass
class Content:
    """A body that arrives in pieces; if it is `cut`, silence follows the last one."""

    pieces: list[bytes]
    cut: bool = False

    def at_eof(self) -> bool:
        return not self.pieces and not self.cut

    async def readany(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        return await asyncio.Event().wait()  # type: ignore[return-value]


@dataclass
class Request:
    content: Content
    content_length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


def request(*pieces: bytes, announced: int | None = None, cut: bool = False) -> Any:
    return Request(Content(list(pieces), cut), announced)


async def test_the_announced_size_of_an_unauthenticated_body_reserves_no_room() -> None:
    intake = BodyReader(100, 400)
    silent = [
        asyncio.ensure_future(intake.read(request(announced=100, cut=True), unauthenticated=True)) for _ in range(50)
    ]
    await asyncio.sleep(0.01)
    assert intake.bytes_in_flight == 0
    assert await intake.read(request(b"x" * 100, announced=100)) == b"x" * 100
    for task in silent:
        task.cancel()


async def test_unauthenticated_bodies_take_at_most_half_of_the_room_and_release_it() -> None:
    intake = BodyReader(100, 400)
    waiting = [
        asyncio.ensure_future(intake.read(request(b"x" * 100, cut=True), unauthenticated=True)) for _ in range(2)
    ]
    await asyncio.sleep(0.01)
    with pytest.raises(Problem, match="overloaded"):
        await intake.read(request(b"x"), unauthenticated=True)
    known = [await intake.read(request(b"y" * 100)) for _ in range(2)]
    with pytest.raises(Problem, match="overloaded"):
        await intake.read(request(b"y"))
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    for body in known:
        intake.release(body)
    assert intake.bytes_in_flight == 0
    body = await intake.read(request(b"x" * 60, b"x" * 40), unauthenticated=True)
    assert (len(body), intake.bytes_in_flight) == (100, 100)
    intake.release(body)
    assert intake.bytes_in_flight == 0


async def test_a_complete_body_no_longer_counts_as_unauthenticated() -> None:
    """By then its sender is known, and storing it takes as long as any other body."""
    intake = BodyReader(100, 400)
    for _ in range(3):
        assert await intake.read(request(b"x" * 100), unauthenticated=True)


@pytest.mark.parametrize("unauthenticated", [False, True])
async def test_a_body_that_is_too_large_is_refused_before_it_is_read(unauthenticated: bool) -> None:
    intake = BodyReader(100, 400)
    for one in (request(announced=101, cut=True), request(b"x" * 60, b"x" * 41)):
        with pytest.raises(Problem, match="body_too_large"):
            await intake.read(one, unauthenticated=unauthenticated)
    assert intake.bytes_in_flight == 0
