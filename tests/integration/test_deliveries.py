"""Every post to Lago makes a record with the receipts of its events, and a row that can be queried."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from schemas.records import DeliveryAttempt
from tests.support.database import projector_parts, rows, until
from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import event, put, quick_delivery, statuses
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.stage import Stage


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    return Stage(kafka.bootstrap, topic_prefix, partitions=1)


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=time.time) as sandbox:
        await sandbox.plan()
        await sandbox.subscribe("sub", "org", subscription_at="2026-01-01T00:00:00Z")
        yield sandbox


def attempts(stage: Stage) -> list[DeliveryAttempt]:
    return [msgspec.json.decode(one.value(), type=DeliveryAttempt) for one in stage.read(stage.topics.deliveries)]


async def test_every_post_makes_one_record_and_none_contains_an_event(stage: Stage, lago: Lago) -> None:
    put(stage, [event(n) for n in range(250)])
    async with (
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 250)
        put(stage, [event(n) for n in range(250, 400)])
        await soon(lambda: len(stage.sensors.receipts) == 400)
    result = attempts(stage)
    assert len(result) == (await lago.stats())["posts"]
    assert sum(one.events for one in result) == 400
    assert {(one.direction, one.event_type, one.status, one.error, one.attempt) for one in result} == {
        ("out", "events.batch", 200, "", 1)
    }
    assert {one.source for one in result} == {f"{stage.topics.events}-0"}
    assert min((one.first, one.last) for one in result) == ("e-0", "e-99")
    assert not any(b"ai_usage" in one.value() for one in stage.read(stage.topics.deliveries))


async def test_a_failed_post_is_recorded_with_its_reason_and_counted(stage: Stage, lago: Lago, database: str) -> None:
    """Refused, answered with an error, connection lost: each of them was an attempt."""
    await lago.fault(kind="status", status=503, method="POST", path="/api/v1/events", count=2)
    await lago.fault(kind="drop", method="POST", path="/api/v1/events", count=1)
    bad = event(3)
    bad.timestamp = "yesterday"
    put(stage, [event(1), event(2), bad])
    async with http_client(trust_env=False) as http, projector_parts(stage, database) as base:
        delivery = quick_delivery(lago, http, isolate_after=50, alone_after=200)
        parts = replace(base, delivery=lambda: delivery)
        async with stage.running("sink", parts), stage.running("project", parts):
            await soon(lambda: len(statuses(stage)) == 3)
            result = attempts(stage)
            await until(database, "SELECT count(*) FROM webhook_delivery_logs", lambda count: count == len(result))
    answered = [(one.status, one.error, one.attempt, one.events) for one in result]
    assert answered == [
        (503, "http_503", 1, 3),
        (503, "http_503", 2, 3),
        (0, "no_answer", 3, 3),
        (422, "invalid_timestamp", 4, 3),
        (200, "", 5, 2),
    ]
    assert await rows(
        database,
        "SELECT count(*) FILTER (WHERE http_status < 300), count(*) FILTER (WHERE http_status >= 400), "
        "count(*) FILTER (WHERE http_status IS NULL), count(DISTINCT source) FROM webhook_delivery_logs",
    ) == [(1, 3, 1, 1)]
