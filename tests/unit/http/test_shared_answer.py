"""Answers that are expensive and need no credential: many requests cost little more than one."""

import asyncio

import pytest

from connectors.http.shared_answer import SharedAnswer


class Clock:
    """Each answer takes some seconds; sleeping takes no time but the clock's."""

    def __init__(self, takes_s: float = 0.125) -> None:
        self.takes_s = takes_s
        self.now = 0.0
        self.made: list[float] = []
        self.fails = False
        self.answer = SharedAnswer(self.make, lambda: self.now, self.sleep)

    async def make(self) -> bytes:
        self.made.append(self.now)
        self.now += self.takes_s
        if self.fails:
            raise ValueError("no answer")
        return b"%d" % len(self.made)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def shared_by(clock: Clock, count: int) -> list[bytes]:
    return await asyncio.gather(*(clock.answer.get() for _ in range(count)))


async def test_requests_that_come_together_share_an_answer_that_is_not_older_than_they_are() -> None:
    clock = Clock()
    assert await shared_by(clock, 100) == [b"1"] * 100
    assert await shared_by(clock, 1) == [b"2"]


async def test_requests_during_an_answer_share_the_next_one() -> None:
    """The answer that is being made may be older than they are."""
    made, may_end = list[int](), asyncio.Event()

    async def make() -> int:
        made.append(len(made) + 1)
        number = made[-1]
        await may_end.wait()
        return number

    answer = SharedAnswer(make, lambda: 0.0)
    first = asyncio.ensure_future(answer.get())
    for _ in range(3):
        await asyncio.sleep(0)
    others = [asyncio.ensure_future(answer.get()) for _ in range(20)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert made == [1]
    may_end.set()
    assert [await first, *await asyncio.gather(*others)] == [1, *[2] * 20]


async def test_answers_take_a_twentieth_of_the_time() -> None:
    clock = Clock()
    for _ in range(3):
        await shared_by(clock, 100)
    assert clock.made == [0, 2.5, 5]
    clock.now += 100
    await shared_by(clock, 1)
    assert clock.made[-1] == 105.125


async def test_no_request_waits_longer_than_some_seconds_and_an_answer() -> None:
    clock = Clock(takes_s=2)
    for _ in range(3):
        await shared_by(clock, 100)
    assert clock.made == [0, 7, 14]


async def test_an_error_reaches_all_who_wait_and_the_next_request_gets_an_answer() -> None:
    clock = Clock()
    clock.fails = True
    with pytest.raises(ValueError, match="no answer"):
        await shared_by(clock, 2)
    clock.fails = False
    assert await shared_by(clock, 1) == [b"2"]


async def test_a_client_that_goes_away_takes_no_answer_from_the_others() -> None:
    clock, gone = Clock(), asyncio.Event()

    async def sleep(_: float) -> None:
        await gone.wait()

    answer = SharedAnswer(clock.make, lambda: clock.now, sleep)
    await answer.get()
    first, second = asyncio.ensure_future(answer.get()), asyncio.ensure_future(answer.get())
    await asyncio.sleep(0)
    first.cancel()
    gone.set()
    assert await second == b"2"
