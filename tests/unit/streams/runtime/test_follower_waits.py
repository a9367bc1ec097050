"""A cancelled wait for a table leaves nothing behind, at any moment of its cancellation."""

import asyncio
import time

import pytest
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from schemas.customers import CustomerRecord
from streams.runtime import compacted_table
from streams.runtime.compacted_table import CompactedTable
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
