"""A cancelled wait for a table leaves nothing behind, at any moment of its cancellation."""

import asyncio
import time
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from schemas.customers import CustomerRecord
from streams.runtime import compacted_table
from streams.runtime.compacted_table import CompactedTable, TopicTable
from tests.support.eventually import soon, within


async def test_a_wait_cancelled_exactly_at_its_timeout_raises_only_the_cancellation() -> None:
    """A partition task cancels its waits when it closes; another error would end the process."""
    follower = CompactedTable({}, "customers", CustomerRecord, time.monotonic, "customers")
    loop = asyncio.get_running_loop()
    waits = [asyncio.ensure_future(follower.wait_fresh(1.0)) for _ in range(500)]
    for number, wait in enumerate(waits):
        loop.call_later(0.48 + number * 0.0002, wait.cancel)
    async with within(20):
        ends = await asyncio.gather(*waits, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}


async def test_while_kafka_is_unavailable_a_table_logs_it_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """It retries twice a second, for hours; its log line names the address and the setting."""
    now, asked = 0.0, 0
    follower = CompactedTable({"bootstrap_servers": "broker:9092"}, "orgs", CustomerRecord, lambda: now, "orgs")

    async def nobody() -> None:
        nonlocal now, asked
        now, asked = now + 0.5, asked + 1
        raise KafkaConnectionError

    monkeypatch.setattr(follower, "_session", nobody)
    monkeypatch.setattr(compacted_table, "_AGAIN_S", 0.0)
    with capture_logs() as said:
        follower.begin()
        await soon(lambda: asked >= 300)
        await follower.stop()
    assert 2 <= len(said) <= 1 + asked * 0.5 / 60
    assert {line["address"] for line in said} == {"KAFKA_BOOTSTRAP_SERVERS=broker:9092"}


class Losing(TopicTable):
    """A cancellation comes out of its library as the error of a connection, once."""

    sessions = 0

    def take(self, partition: int, records: Any) -> None:
        """Do nothing."""

    async def _session(self) -> None:
        self.sessions += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if self.sessions > 1:
                raise
            raise KafkaConnectionError from None


async def test_a_table_stops_although_a_library_takes_its_cancellation_for_an_error() -> None:
    """An earlier version connected again, and who stopped the table waited for it without an end."""
    table = Losing({}, "topic", time.monotonic, "losing")
    table.begin()
    await soon(lambda: table.sessions == 1)
    async with within(20) as limit:
        await table.stop()
    assert not limit.expired()
    assert table._task is not None
    assert table._task.done()
