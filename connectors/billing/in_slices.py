"""Passes over a whole table in an event loop that other requests wait for."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
#: Number of records between two pauses: some milliseconds of CPU time.
SLICE = 2_000


async def in_slices(records: Iterable[T], size: int = SLICE) -> AsyncIterator[list[T]]:
    """The records as they are now, `size` at a time; other tasks run in between, and may change the table.

    A million records take a second of CPU time, which no request may wait for.
    """
    rest = iter(list(records))
    while part := list(islice(rest, size)):
        yield part
        await asyncio.sleep(0)
