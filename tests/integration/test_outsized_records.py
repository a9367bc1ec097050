"""Records that are larger than any of ours, which another program writes: each costs itself, and no role stops at it."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import msgspec
import pytest
from confluent_kafka import Producer

from schemas.record_sizes import MOST_EVENT_BYTES
from tests.support.calls import Raw, raw, slp
from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import event, put, quick_delivery, statuses
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.stage import Stage

MIB = 1 << 20


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    """Its producer compresses, so the broker accepts what is larger than the topic's limit once it is read."""
    made = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    made.producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "compression.type": "zstd", "message.max.bytes": 64 * MIB}
    )
    return made


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=time.time) as sandbox:
        await sandbox.plan()
        await sandbox.subscribe("sub", "org", subscription_at="2026-01-01T00:00:00Z")
        yield sandbox


def call(number: int, **fields: object) -> Raw:
    at = time.time_ns() // 1000
    return raw(0, slp(number, at_us=at, **fields), received_us=at)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "outsized",
    [
        lambda: call(7, litellm_call_id="i" * MIB),
        lambda: call(7, model="m" * 20 * MIB),
        lambda: call(7, model="m" * 9 * MIB, cost="-1"),
        lambda: replace(call(7), key=b"k" * 2 * MIB),
        lambda: replace(call(7), key=b"\xff" * 9 * MIB),
    ],
    ids=["id", "larger than a topic", "refused", "key", "key that is no text"],
)
async def test_the_meter_refuses_an_outsized_call_and_counts_the_others(
    stage: Stage, outsized: Callable[[], Raw]
) -> None:
    stage.map("acme", "org", "sub")
    found = outsized()
    stage.put([call(0), found, call(1)])
    async with stage.running("meter", stage.parts()):
        await soon(lambda: stage.sensors.calls.get("billable") == 2)
    assert stage.sensors.halted == []
    [refused] = stage.values(stage.topics.rejected)
    value = found.value or b""
    assert (refused["reason"], refused["stage"], refused["offset"]) == ("too_large", "meter", 1)
    assert (refused["length"], refused["sha256"]) == (len(value), hashlib.sha256(value).hexdigest())
    assert "call" not in refused


@pytest.mark.parametrize(
    "fields",
    [
        {"transaction_id": "t" * MIB},
        {"external_subscription_id": "s" * MIB},
        {"properties": {"unit": "1", "note": "n" * 20 * MIB}},
    ],
    ids=["id", "subscription", "larger than a topic"],
)
async def test_the_sink_puts_an_outsized_event_aside_and_posts_the_others(
    stage: Stage, lago: Lago, fields: dict[str, object]
) -> None:
    outsized = msgspec.json.encode({**msgspec.to_builtins(event(7)), **fields})
    put(stage, [event(0), outsized, event(1)])
    async with (
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: statuses(stage).get("e-1") == "completed")
        await soon(lambda: bool(stage.read(stage.topics.dlq)))
    assert stage.sensors.halted == []
    assert statuses(stage)["e-0"] == "completed"
    [letter] = stage.read(stage.topics.dlq)
    headers = dict(letter.headers())
    assert (headers["reason"], headers["origin_offset"]) == (b"malformed", b"1")
    assert letter.value() == (outsized if len(outsized) <= MOST_EVENT_BYTES else None)
