"""A worker logs its partitions correctly, and only once."""

import asyncio
from dataclasses import dataclass
from typing import Any

from structlog.testing import capture_logs

from connectors.processes.worker import log_partitions
from tests.support.eventually import soon

TICK_S = 0.001


@dataclass
class Lane:
    """The attributes of a partition task that are read; it is open once it expects an offset."""

    expected: int | None = None


async def test_partitions_are_logged_once_they_are_open_and_again_after_a_change() -> None:
    """An unchanged assignment is one line, no matter how long it lasts."""
    partition_tasks: dict[int, Any] = {}
    with capture_logs() as said:
        telling = asyncio.ensure_future(log_partitions(partition_tasks, "meter", TICK_S))
        partition_tasks.update({0: Lane(), 3: Lane()})
        await asyncio.sleep(10 * TICK_S)
        assert said == []
        partition_tasks[3].expected = 17
        await soon(lambda: len(said) == 1)
        partition_tasks[0].expected = 0
        await soon(lambda: len(said) == 2)
        await asyncio.sleep(10 * TICK_S)
        del partition_tasks[3]
        await soon(lambda: len(said) == 3)
        telling.cancel()
    assert {line["event"] for line in said} == {"partitions_opened"}
    assert [(line["opened"], line["assigned"]) for line in said] == [([3], 2), ([0, 3], 2), ([0], 1)]
