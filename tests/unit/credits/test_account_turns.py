"""Movements of one credit account run one after the other, those of other accounts in parallel, and every wait is
bounded.
"""

import asyncio

import pytest

from connectors.credits.account_turns import AccountTurns
from schemas.errors import Unavailable


async def test_requests_of_one_account_run_in_turn_and_those_of_others_in_parallel() -> None:
    turns, order, held = AccountTurns(60, lambda: None), list[str](), asyncio.Event()

    async def request(account: str, name: str) -> None:
        async with turns.turn(account):
            order.append(name)
            if name == "first":
                await held.wait()

    waiting = [asyncio.ensure_future(request("a", name)) for name in ("first", "second", "third")]
    await asyncio.sleep(0)
    await request("b", "other")
    assert order == ["first", "other"]
    held.set()
    await asyncio.gather(*waiting)
    assert order == ["first", "other", "second", "third"]


async def test_a_request_that_waits_too_long_is_refused_and_counted_and_the_account_goes_on() -> None:
    refused: list[int] = []
    turns = AccountTurns(0.01, lambda: refused.append(1))
    async with turns.turn("a"):
        with pytest.raises(Unavailable, match="no_free_connection"):
            async with turns.turn("a"):
                raise AssertionError
    assert refused == [1]
    with pytest.raises(ZeroDivisionError):
        async with turns.turn("a"):
            raise ZeroDivisionError
    async with turns.turn("a"):
        assert turns._turns
    assert not turns._turns
