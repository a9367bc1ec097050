"""A role that ends leaves nothing behind in its process, so that it may be started again."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from streams.runtime.compacted_table import TopicTable
from streams.runtime.faust_transport import App
from streams.runtime.role import MultiTopicRole, Role
from streams.runtime.role_counts import ROLE, RoleCounts
from tests.support.stage import RecordedSensors


class _Table(TopicTable):
    def take(self, partition: int, records: Sequence[ConsumerRecord]) -> None: ...

    async def _session(self) -> None:
        await asyncio.Event().wait()


def _no_work(_partition: int) -> Any:
    raise AssertionError("no partition is assigned")


async def test_a_closed_role_is_freed_with_its_app() -> None:
    """In an earlier version each restart after an error kept the previous app, consumer and metrics: 0.5 MiB."""

    async def freed() -> list["weakref.ref[Any]"]:
        app = App("freed", broker="aiokafka://localhost:1", store="memory://", web_enabled=False)
        role = Role(app, "topic", _no_work, RecordedSensors(), 0.0)
        await role.close()
        return [weakref.ref(role), weakref.ref(app)]

    ended = await freed()
    gc.collect()
    assert [one() for one in ended] == [None, None]


async def test_a_closed_role_stops_reading_its_tables() -> None:
    """In an earlier version each restart after an error left a running consumer."""
    table = _Table({}, "orgs", lambda: 0.0, "orgs")
    app = App("tables", broker="aiokafka://localhost:1", store="memory://", web_enabled=False)
    role = Role(app, "topic", _no_work, RecordedSensors(), 0.0, tables=(table,))
    table.begin()
    await asyncio.sleep(0)
    await role.close()
    assert table._task is not None and table._task.cancelled()


class _Task:
    """A partition task that takes a second to close, or fails to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.closed = False
        self._error = error

    async def close(self) -> None:
        if self._error is not None:
            raise self._error
        await asyncio.sleep(0.05)
        self.closed = True


@pytest.mark.parametrize("several", [False, True])
async def test_a_partition_that_fails_to_close_leaves_no_other_open(several: bool) -> None:
    table = _Table({}, "orgs", lambda: 0.0, "orgs")
    app = App(f"unclosed-{several}", broker="aiokafka://localhost:1", store="memory://", web_enabled=False)
    roles = [
        Role(app, topic, _no_work, RecordedSensors(), 0.0, tables=(table,)) for topic in ("one", "other")[: 1 + several]
    ]
    table.begin()
    broken, sound = _Task(OSError("no space left")), _Task()
    roles[0].partition_tasks[0], roles[-1].partition_tasks[1] = broken, sound  # type: ignore[assignment]
    with pytest.raises(OSError, match="no space left"):
        await (MultiTopicRole(*roles) if several else roles[0]).close()
    assert sound.closed
    assert table._task is not None and table._task.cancelled()


async def test_roles_of_one_process_count_separately() -> None:
    """Each role's metrics are served on its own port: otherwise a sum over all ports would count an interruption once
    for each role.
    """
    counts = RoleCounts()

    async def of(role: str, times: int) -> dict[str, int]:
        ROLE.set(role)
        for _ in range(times):
            counts.add("heartbeat")
        return counts.of_role()

    found = await asyncio.gather(
        *(asyncio.ensure_future(of(role, times)) for role, times in (("meter", 2), ("sink", 1)))
    )
    assert [one["heartbeat"] for one in found] == [2, 1]
    assert counts.of_role()["heartbeat"] == 0
