"""A table, and the api's background work, survive any error: they must not end the ingress in the same process."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from connectors.processes.worker_parts import _meanwhile
from connectors.telemetry.counted_by_role import TASKS, watch_counts
from schemas.customers import CustomerRecord
from schemas.errors import Unavailable
from streams.runtime import compacted_table, unreadable
from streams.runtime.compacted_table import CompactedTable, TopicTable
from streams.runtime.kept_up import kept_up
from tests.support.eventually import within


class Picky(TopicTable):
    """Raises an error at one record."""

    def __init__(self, error: BaseException) -> None:
        super().__init__({}, "topic", time.monotonic, "picky")
        self.error, self.taken = error, list[int]()

    def take(self, partition: int, records: Any) -> None:
        for record in records:
            if record.offset == 1:
                raise self.error
            self.taken.append(record.offset)


@pytest.mark.parametrize(
    "error", [OverflowError(), KeyError("x"), RecursionError(), TypeError(), UnicodeDecodeError("a", b"", 0, 1, "")]
)
def test_an_unexpected_record_is_skipped_and_the_others_are_read(error: Exception) -> None:
    follower = Picky(error)
    unreadable._said_at.clear()
    before = unreadable.COUNTS.of_role()["picky"]
    with structlog.testing.capture_logs() as logs:
        follower._take(0, [SimpleNamespace(offset=offset) for offset in range(4)])
    assert set(follower.taken) == {0, 2, 3}
    assert unreadable.COUNTS.of_role()["picky"] == before + 1
    [result] = logs
    assert (result["event"], result["offset"], result["error"]) == (
        "follower_record_unreadable",
        1,
        type(error).__name__,
    )


def test_many_errors_are_counted_and_logged_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer to a topic must not be able to fill the log of every reader."""
    clock = [0.0]
    monkeypatch.setattr(unreadable.time, "monotonic", lambda: clock[0])
    unreadable._said_at.clear()
    follower = CompactedTable({}, "topic", CustomerRecord, time.monotonic, "many")
    registry = CollectorRegistry()
    watch_counts(registry)
    with structlog.testing.capture_logs() as logs:
        for offset in range(1000):
            clock[0] = offset / 10
            follower.take(0, [SimpleNamespace(key=b"k", value=b"\xff", offset=offset)])  # type: ignore[list-item]
    assert [one["offset"] for one in logs] == [0, 600]
    assert registry.get_sample_value("meterbridge_unreadable_records_total", {"table": "many"}) == 1000
    assert registry.get_sample_value("meterbridge_unreadable_records_total", {"table": "orgs"}) is not None


@pytest.mark.parametrize("error", [RuntimeError("a library's own"), asyncio.CancelledError()])
async def test_a_table_reads_on_after_any_error_of_its_session(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier a table that ended took `serve` and the ingress with it, because the totals asked whether it was
    complete.
    """
    monkeypatch.setattr(compacted_table, "_AGAIN_S", 0.001)
    sessions: list[int] = []

    @asynccontextmanager
    async def reading(*_: Any, **__: Any) -> AsyncIterator[Any]:
        sessions.append(1)
        raise error
        yield

    monkeypatch.setattr(compacted_table, "reading", reading)
    follower = CompactedTable({}, "topic", CustomerRecord, time.monotonic, "customers")
    follower.begin()
    async with within(10):
        while len(sessions) < 3:
            await asyncio.sleep(0.001)
    assert not follower.complete()
    await follower.stop()


async def test_background_work_is_restarted_after_any_kind_of_end() -> None:
    """A `CancelledError` that a library raises looks like the end of the process, and leaves no log line."""
    ends: list[BaseException | None] = [ValueError(), None, asyncio.CancelledError(), Unavailable("postgres_away")]
    waits = asyncio.Event()

    async def work() -> None:
        if not ends:
            waits.set()
            await asyncio.Event().wait()
        if (error := ends.pop(0)) is not None:
            raise error

    registry = CollectorRegistry()
    watch_counts(registry)
    with structlog.testing.capture_logs() as logs:
        kept = asyncio.ensure_future(kept_up("reports", work, 0.0))
        async with within(10):
            await waits.wait()
        kept.cancel()
        await asyncio.wait({kept})
    assert kept.cancelled(), "a process that ends is not held up"
    assert [(one["event"], one["log_level"], one["task"], one.get("error")) for one in logs] == [
        ("background_task_interrupted", "error", "reports", "ValueError"),
        ("background_task_ended", "error", "reports", None),
        ("background_task_interrupted", "error", "reports", "CancelledError"),
        ("background_task_interrupted", "error", "reports", "Unavailable"),
    ]
    counted = "meterbridge_background_task_interruptions_total"
    assert registry.get_sample_value(counted, {"task": "reports"}) == 3, (
        "a neighbour that is away has alarms of its own"
    )
    assert {registry.get_sample_value(counted, {"task": task}) for task in TASKS} == {0}


@pytest.mark.parametrize("error", [None, RuntimeError("the pool is closed")])
async def test_a_cancelled_task_ends_even_if_its_work_ignores_the_cancellation(error: Exception | None) -> None:
    """In an earlier version it kept running beside the task of the restarted role."""

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    task = asyncio.ensure_future(kept_up("x", work))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    assert task.cancelled()


async def test_a_task_that_misses_a_cancellation_is_cancelled_again_when_its_role_ends() -> None:
    """With Python 3.11 `asyncio.wait_for` may miss one if its result arrives at the same moment."""
    rounds = 0

    async def work() -> None:
        nonlocal rounds
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                rounds += 1
                if rounds == 2:
                    raise

    async with AsyncExitStack() as stack:
        _meanwhile(stack, "x", work)
        await asyncio.sleep(0)
        [task] = asyncio.all_tasks() - {asyncio.current_task()}
    assert task.cancelled()
