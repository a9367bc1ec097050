"""Iterates over a whole table without blocking the event loop."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
#: Number of records between two pauses: some milliseconds of CPU time.
SLICE = 2_000


async def in_slices(records: Iterable[T], size: int = SLICE) -> AsyncIterator[list[T]]:
    """Yield the present records, `size` at a time. Other tasks run in between, and may change the table.

    A million records take a second of CPU time, and no request may wait so long.
    """
    rest = iter(list(records))
    while part := list(islice(rest, size)):
        yield part
        await asyncio.sleep(0)
