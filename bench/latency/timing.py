"""Work that is started at an even rate, and the percentiles of how long it took."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def at_pace(do: Callable[[int], Awaitable[T]], rate: float, count: int) -> list[T]:
    """Start `do(0)`, `do(1)`, ... at an even rate, whether earlier ones have ended or not; return their results.

    Args:
        rate: starts a second.
        count: how many are started.
    """
    tasks: list[asyncio.Task[T]] = []
    clock = asyncio.get_running_loop().time
    start = clock()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number / rate - clock()))
            tasks.append(group.create_task(_awaited(do, number)))
    return [task.result() for task in tasks]


async def _awaited(do: Callable[[int], Awaitable[T]], number: int) -> T:
    return await do(number)


def row(took_s: Sequence[float], percentile: int, **about: Any) -> dict[str, Any]:
    """Return a row of the results: what was measured, the number of calls, and milliseconds.

    Args:
        percentile: which one is shown beside the median, e.g. 99 as `p99_ms`.
        about: further figures of the row.
    """
    waits = sorted(took_s)
    figures = {"p50": waits[len(waits) // 2], f"p{percentile}": waits[len(waits) * percentile // 100]}
    figures["longest"] = waits[-1]
    return {**about, "calls": len(waits), **{f"{name}_ms": round(value * 1000, 1) for name, value in figures.items()}}
