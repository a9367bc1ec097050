"""The sink and the retry role on real Kafka: every event ends delivered or as a dead letter, once."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from connectors.lago.client import LagoClient
from schemas.records import LagoEvent, Manifest
from streams.core.backoff import RetryPolicy
from streams.core.breaker import Breaker
from streams.delivery import Delivery
from streams.roles import Role
from streams.writes import MANIFEST
from tests.support.eventually import soon
from tests.support.kafka import Kafka
from tests.support.sandbox import KEY, Lago, lago_sandbox
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


def quick_delivery(lago: Lago, http: httpx.AsyncClient) -> Delivery:
    """One that loses patience within a test."""
    policy = RetryPolicy(random.random, base_s=0.01, cap_s=0.05, isolate_after=2, alone_after=3)
    return Delivery(
        LagoClient(http, lago.url, KEY),
        concurrency=asyncio.Semaphore(4),
        breaker=Breaker(policy, time.monotonic()),
        policy=policy,
        clock=time.monotonic,
        sleep=asyncio.sleep,
        on_request=lambda *_: None,
    )


def event(number: int) -> LagoEvent:
    return LagoEvent(f"e-{number}", "sub", "ai_usage", f"{int(time.time())}.000", "1.5", {"unit": "1", "requests": "1"})


def put(stage: Stage, events: list[LagoEvent | bytes]) -> None:
    manifest = msgspec.json.encode(Manifest(0, 0, 0, 1))
    for one in events:
        value = one if isinstance(one, bytes) else msgspec.json.encode(one)
        stage.producer.produce(stage.topics.events, value, "sub", headers=[(MANIFEST, manifest)])
    stage.producer.flush(10)


def statuses(stage: Stage) -> dict[str, str]:
    return {receipt["transaction_id"]: receipt["status"] for receipt in stage.values(stage.topics.receipts)}


async def opened(role: Role) -> None:
    await soon(lambda: bool(role.lanes) and all(lane.expected is not None for lane in role.lanes.values()))


async def test_events_are_delivered_and_receipted(stage: Stage, lago: Lago) -> None:
    put(stage, [event(n) for n in range(250)])
    async with (
        httpx.AsyncClient(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 250)
    assert (await lago.stats())["totals"]["calls"] == 250
    assert set(statuses(stage).values()) == {"completed"}


async def test_a_restarted_sink_posts_nothing_twice_that_lago_would_bill_twice(stage: Stage, lago: Lago) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for start in (0, 40):
            put(stage, [event(n) for n in range(start, start + 40)])
            async with stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))):
                await soon(lambda start=start: len(stage.sensors.receipts) == start + 40)  # type: ignore[misc]
    stats = await lago.stats()
    assert (stats["totals"]["calls"], stats["duplicates"]) == (80, 0)


async def test_what_a_dead_owner_may_have_posted_counts_as_delivered(stage: Stage, lago: Lago) -> None:
    """Killed between Lago's answer and the commit: the next owner is told the event exists already."""
    events = [event(n) for n in range(10)]
    await lago.post(*[msgspec.to_builtins(one) for one in events[:6]])
    put(stage, list(events))
    async with (
        httpx.AsyncClient(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 10)
    assert (await lago.stats())["totals"]["calls"] == 10
    assert set(statuses(stage).values()) == {"completed"}


async def test_a_poisoned_event_goes_through_its_retries_to_the_dead_letters_while_others_pass(
    stage: Stage, lago: Lago
) -> None:
    await lago.fault(kind="poison", transaction_id="e-7")
    put(stage, [event(n) for n in range(20)])
    async with httpx.AsyncClient(trust_env=False) as http:
        parts = stage.parts(delivery=quick_delivery(lago, http), retry_delay_s=0.1)
        async with stage.running("sink", parts), stage.running("retry", parts):
            await soon(lambda: statuses(stage).get("e-7") == "failed", limit_s=30)
    assert (await lago.stats())["totals"]["calls"] == 19
    (letter,) = stage.read(stage.topics.dlq)
    headers = {name: value.decode() for name, value in letter.headers() if name != MANIFEST}
    assert headers["attempt"] == "4"
    assert headers["origin_topic"] == stage.topics.events and headers["origin_offset"] == "7"
    assert msgspec.json.decode(letter.value(), type=LagoEvent) == msgspec.json.decode(
        stage.read(stage.topics.events)[7].value(), type=LagoEvent
    )
    waits = [dict(message.headers())["attempt"] for message in stage.read(stage.topics.retry)]
    assert waits == [b"1", b"2", b"3"]


async def test_an_event_that_heals_is_completed_by_the_retry_role(stage: Stage, lago: Lago) -> None:
    await lago.fault(kind="poison", transaction_id="e-3", count=4)
    put(stage, [event(n) for n in range(5)])
    async with httpx.AsyncClient(trust_env=False) as http:
        parts = stage.parts(delivery=quick_delivery(lago, http), retry_delay_s=0.2)
        async with stage.running("sink", parts), stage.running("retry", parts):
            await soon(lambda: set(statuses(stage).values()) == {"completed"}, limit_s=30)
    assert (await lago.stats())["totals"]["calls"] == 5


async def test_a_record_that_is_no_event_is_a_dead_letter(stage: Stage, lago: Lago) -> None:
    put(stage, [event(1), b"\0nonsense", event(2)])
    async with (
        httpx.AsyncClient(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 2)
    assert [message.value() for message in stage.read(stage.topics.dlq)] == [b"\0nonsense"]


@pytest.mark.parametrize("name", ["sink", "retry"])
async def test_a_chunk_that_was_dropped_is_asked_for_again(stage: Stage, lago: Lago, name: str) -> None:
    async with (
        httpx.AsyncClient(trust_env=False) as http,
        stage.running(name, stage.parts(delivery=quick_delivery(lago, http))) as role,
    ):
        await opened(role)
        lane, lost = role.lanes[0], []
        offer = lane.offer

        def losing(chunk: Any) -> None:
            if lost:
                offer(chunk)
            lost.append(chunk)

        lane.offer = losing  # type: ignore[method-assign]
        topic = stage.topics.events if name == "sink" else stage.topics.retry
        for number in range(5):
            stage.producer.produce(topic, msgspec.json.encode(event(number)), "sub", partition=0)
        stage.producer.flush(10)
        await soon(lambda: len(stage.sensors.receipts) == 5)
        assert lane.gaps + stage.sensors.missing == 1
    assert (await lago.stats())["totals"]["calls"] == 5
