"""A changelog is read within a bound on memory at any size, with the same result as if all of it were in memory."""

import asyncio
import struct
import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from schemas.ledger import POSITION_KEY, Counters, Position, Sum, Window
from schemas.money import ZERO
from streams.core.mapping.held_reasons import NO_MAPPING
from streams.core.metering.ledger_state import LedgerState, verify
from streams.runtime.transactions import KafkaStalled
from streams.state import changelog
from streams.state.changelog import Snapshot, read, restore, restoring, windows_of
from streams.state.held_on_disk import EvictedWindowsFile
from streams.state.overflow_windows import OlderWindows
from tests.support.own_changelog import image_of
from tests.support.snapshots import snapshot_from

_encode = msgspec.msgpack.encode
TP = TopicPartition("changelog", 0)
Written = tuple[bytes, bytes | None]


@dataclass(slots=True)
class _Record:
    key: bytes
    value: bytes | None


class Consumer:
    """An aiokafka consumer that reads a list, or records from a function."""

    def __init__(self, written: Iterable[Written], end: int, batch: int) -> None:
        self._written, self._end, self._batch = iter(written), end, batch
        self._at = 0

    async def end_offsets(self, _tps: object) -> dict[TopicPartition, int]:
        return {TP: self._end}

    async def beginning_offsets(self, _tps: object) -> dict[TopicPartition, int]:
        return {TP: 0}

    def assign(self, _tps: object) -> None: ...

    def seek(self, _tp: object, offset: int) -> None:
        self._at = offset

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[_Record]]:
        found = [_Record(*one) for one in islice(self._written, self._batch)]
        self._at += len(found)
        return {TP: found}

    async def position(self, _tp: object) -> int:
        return self._at

    def highwater(self, _tp: object) -> int:
        return self._end


class Hidden(Consumer):
    """Behind the records another producer's transaction is not finished, and hides one more."""

    def __init__(self, written: list[Written]) -> None:
        super().__init__(written, len(written), 10)

    def highwater(self, _tp: object) -> int:
        return self._end + 1


def held(first: int, name: str, calls: int = 1) -> Window:
    return Window(first, first, name, "end_user", "", "", NO_MAPPING, "openai/gpt-4o", "openai", (), 0, 1, 0, 0, calls)


def window_key(first: int) -> bytes:
    return b"w" + struct.pack(">q", first)


def position(calls: int) -> Written:
    return POSITION_KEY, _encode(Position(counters=Counters(Sum(calls, ZERO), Sum(calls, ZERO))))


def read_back(written: list[Written], in_memory: int, batch: int, start: int = 0) -> Snapshot:
    consumer = Consumer(written[start:], len(written), batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changelog, "READ_IN_MEMORY", in_memory)
        return asyncio.run(read(consumer, TP.topic, 0, start))


async def test_a_transaction_that_never_ends_is_reported_and_not_awaited_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is read beyond it: a ledger that waits for it says so every 45 s."""
    monkeypatch.setattr(changelog, "STALLED_S", 0.0)
    written = [position(0)]
    assert (await read(Hidden(written), TP.topic, 0)).hidden
    with pytest.raises(KafkaStalled, match="changelog-0 could not be read beyond 1 "):
        await read(Hidden(written), TP.topic, 0, whole=True)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(1, 9)), max_size=60),
    cut=st.integers(0, 60),
    in_memory=st.integers(0, 6),
    batch=st.integers(1, 8),
)
def test_a_changelog_read_through_a_file_gives_what_was_written(
    steps: list[tuple[int, int | None]], cut: int, in_memory: int, batch: int
) -> None:
    """For a complete changelog and the end of one: the last value of each key counts, and deleted keys are gone."""
    written = [
        (window_key(first), None if calls is None else _encode(held(first, f"n{first % 5}", calls)))
        for first, calls in steps
    ]
    plain = LedgerState(Position())
    restore(plain, snapshot_from(0, dict(written)), 0)
    whole = LedgerState(Position())
    restore(whole, read_back(written, in_memory, batch), 0)
    assert image_of(whole) == image_of(plain)
    assert sorted(one.first for one in windows_of(read_back(written, in_memory, batch))) == sorted(plain.windows)
    cut %= len(written) + 1
    tail = LedgerState(Position(), EvictedWindowsFile(2))
    restore(tail, snapshot_from(0, dict(written[:cut])), 0)
    restore(tail, read_back(written, in_memory, batch, cut), 0)
    for name in {window.customer_id for window in plain.windows.values()}:
        tail.warm(name)
    assert tail.windows == plain.windows
    assert tail.cold is not None and not tail.cold.windows


NAMES = 30_000


def flood() -> Iterator[Written]:
    """Every second window was sealed since; its key is still there."""
    for first in range(NAMES):
        yield window_key(first), _encode(held(first, f"attack-{first}"))
    for first in range(0, NAMES, 2):
        yield window_key(first), None
    yield position(NAMES // 2)


def test_a_flood_is_read_back_within_a_bound_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 2.5 MB; with all windows in memory it was 5.9 MB."""
    monkeypatch.setattr(changelog, "READ_IN_MEMORY", 1_000)
    consumer = Consumer(flood(), NAMES + NAMES // 2 + 1, 500)

    async def reopened() -> LedgerState:
        ledger = LedgerState(Position(), EvictedWindowsFile(1_000))
        snapshot = await read(consumer, TP.topic, 0)
        steps = sum(1 for _ in restoring(ledger, snapshot, 0))
        assert steps >= NAMES // 2 // 1_000, "others have their turn meanwhile"
        return ledger

    tracemalloc.start()
    try:
        ledger = asyncio.run(reopened())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    verify(ledger)
    assert ledger.held_windows() == NAMES // 2 and len(ledger.windows) == 1_000
    assert peak < 4e6, f"{peak / 1e6:.1f} MB"


def test_a_disk_that_accepts_nothing_costs_memory_and_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(OlderWindows):
        def __init__(self, *, complete: bool) -> None:
            super().__init__(complete=complete)
            self._file.execute("PRAGMA max_page_count=1")

    monkeypatch.setattr(changelog, "OlderWindows", Full)
    written = [(window_key(first), _encode(held(first, f"n{first}"))) for first in range(500)]
    with capture_logs() as result:
        snapshot = read_back([*written, position(500)], 20, 10)
    ledger = LedgerState(Position())
    restore(ledger, snapshot, 0)
    verify(ledger)
    assert len(ledger.windows) == 500
    assert [one["event"] for one in result] == ["changelog_stays_in_memory"]
