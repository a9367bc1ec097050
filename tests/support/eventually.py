"""Waiting in tests: a condition with a deadline, never a sleep of hoped-for length."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: A limit is for a machine that has nothing else to do; on a busy one the same takes longer.
PATIENCE = 10.0
#: The pause between two tries: twice as long as the last one took, so that a wait leaves the processor to what it waits for.
_LEAST_S, _MOST_S = 0.01, 0.2


def within(limit_s: float) -> asyncio.Timeout:
    """Return a limit for the block of an `async with`, in seconds of a machine that has nothing else to do.

    Raises:
        TimeoutError: from the block, after `PATIENCE` times as long.
    """
    return asyncio.timeout(limit_s * PATIENCE)


def _pause_s(begun: float) -> float:
    return min(max(2 * (time.monotonic() - begun), _LEAST_S), _MOST_S)


def eventually(probe: Callable[[], T], limit_s: float = 10.0, every_s: float = 0.02) -> T:
    """Return the first truthy answer of `probe`, which is asked again after `every_s`.

    Raises:
        AssertionError: none within `limit_s`; with the last answer.
    """
    deadline = time.monotonic() + limit_s * PATIENCE
    begun = time.monotonic()
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"still {answer!r} after {limit_s} s"
        time.sleep(max(_pause_s(begun), every_s))
        begun = time.monotonic()
    return answer


async def soon(probe: Callable[[], T], limit_s: float = 10.0) -> T:
    """Do the same as `eventually` while this event loop continues to run; `probe` may block, because it runs in a thread."""
    deadline = time.monotonic() + limit_s * PATIENCE
    begun = time.monotonic()
    while not (answer := await asyncio.to_thread(probe)):
        assert time.monotonic() < deadline, f"still {answer!r} after {limit_s} s"
        await asyncio.sleep(_pause_s(begun))
        begun = time.monotonic()
    return answer
