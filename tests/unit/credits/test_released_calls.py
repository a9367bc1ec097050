"""The calls of a release are read in pieces: with all calls of a large release in memory, a projector could crash
before the end, again and again.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from connectors.postgres import corrections
from connectors.postgres.corrections import Moved, calls_of


class Log:
    """A connection to a usage log with two calls of the first part, and one call of every other part."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.locked = 0

    async def execute(self, _lock: str) -> None:
        self.locked += 1

    async def fetch(self, _query: str, parts: Sequence[str]) -> list[tuple[Any, ...]]:
        self.asked.append(list(parts))
        return [(f"{part}-{n}".encode(), "2026-11-01") for part in parts for n in range(2 if part == "0" else 1)]


@pytest.mark.parametrize("parts", [0, 1, 4, 9, 10])
async def test_the_calls_of_a_release_are_read_for_a_few_parts_at_a_time(
    monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    monkeypatch.setattr(corrections, "CHUNK", 5)
    monkeypatch.setattr(corrections, "PARTS", 2)
    log, names = Log(), [str(n) for n in range(parts)]
    chunks: list[list[Any]] = []
    async for chunk in calls_of(log, Moved(names, prepaid=True)):
        chunks.append(list(chunk))
        # It has not read much more than the chunk needs.
        assert sum(map(len, log.asked)) <= 5 * len(chunks) + 2
    assert log.locked == 1
    assert all(len(asked) <= 2 for asked in log.asked)
    assert [len(chunk) for chunk in chunks[:-1]] == [5] * (len(chunks) - 1)
    calls = [call for chunk in chunks for call in chunk]
    assert len(calls) == len(set(calls)) == (parts + 1 if parts else 0)
