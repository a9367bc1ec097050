"""The sink and the retry role with real Kafka: every event ends delivered or as a dead letter, once."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from schemas.records import LagoEvent
from streams.runtime import transactions
from streams.state.step_writes import MANIFEST
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import event, opened, put, quick_delivery, statuses
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


async def test_events_are_delivered_and_receipted(stage: Stage, lago: Lago) -> None:
    put(stage, [event(n) for n in range(250)])
    async with (
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 250)
    assert (await lago.stats())["totals"]["calls"] == 250
    assert set(statuses(stage).values()) == {"completed"}


async def test_a_restarted_sink_posts_nothing_twice_that_lago_would_bill_twice(stage: Stage, lago: Lago) -> None:
    async with http_client(trust_env=False) as http:
        for start in (0, 40):
            put(stage, [event(n) for n in range(start, start + 40)])
            async with stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))):
                await soon(lambda start=start: len(stage.sensors.receipts) == start + 40)  # type: ignore[misc]
    stats = await lago.stats()
    assert (stats["totals"]["calls"], stats["duplicates"]) == (80, 0)


async def test_an_event_that_a_dead_owner_may_have_posted_counts_as_delivered(stage: Stage, lago: Lago) -> None:
    """The owner was killed between Lago's answer and the commit: Lago answers the next owner that the event exists already."""
    events = [event(n) for n in range(10)]
    await lago.post(*[msgspec.to_builtins(one) for one in events[:6]])
    put(stage, list(events))
    async with (
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 10)
    assert (await lago.stats())["totals"]["calls"] == 10
    assert set(statuses(stage).values()) == {"completed"}


async def test_a_commit_that_stalls_without_an_error_is_repeated_with_another_producer(
    stage: Stage, lago: Lago, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka waits without a limit. Until the partition task is opened again, Lago has the events, but no receipts
    exist.
    """
    monkeypatch.setattr(transactions, "STALLED_S", 2.0)
    committing, stalled = AIOKafkaProducer.commit_transaction, asyncio.Event()

    async def stalls_once(self: AIOKafkaProducer) -> None:
        if not stalled.is_set():
            stalled.set()
            await asyncio.Event().wait()
        await committing(self)

    monkeypatch.setattr(AIOKafkaProducer, "commit_transaction", stalls_once)
    put(stage, [event(n) for n in range(10)])
    async with (
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 10)
    assert stalled.is_set()
    assert (await lago.stats())["totals"]["calls"] == 10
    assert set(statuses(stage).values()) == {"completed"}


async def test_a_bad_event_goes_through_its_retries_to_the_dead_letters_while_others_pass(
    stage: Stage, lago: Lago
) -> None:
    await lago.fault(kind="poison", transaction_id="e-7")
    put(stage, [event(n) for n in range(20)])
    async with http_client(trust_env=False) as http:
        parts = stage.parts(delivery=quick_delivery(lago, http), retry_delay_s=0.1)
        async with stage.running("sink", parts), stage.running("retry", parts):
            await soon(lambda: statuses(stage).get("e-7") == "failed", limit_s=30)
    assert (await lago.stats())["totals"]["calls"] == 19
    (dead_letter,) = stage.read(stage.topics.dlq)
    headers = {name: value.decode() for name, value in dead_letter.headers() if name != MANIFEST}
    assert headers["attempts"] == "4"
    assert headers["origin_topic"] == stage.topics.events and headers["origin_offset"] == "7"
    assert msgspec.json.decode(dead_letter.value(), type=LagoEvent) == msgspec.json.decode(
        stage.read(stage.topics.events)[7].value(), type=LagoEvent
    )
    receipts = [one for one in stage.values(stage.topics.receipts) if one["transaction_id"] == "e-7"]
    assert [(one["status"], one["attempts"], one["reason"]) for one in receipts] == [
        *(("processing", attempt, "http_500") for attempt in (1, 2, 3)),
        ("failed", 4, "http_500"),
    ]
    waits = {dict(message.headers())["attempt"]: message.partition() for message in stage.read(stage.topics.retry)}
    assert sorted(waits) == [b"1", b"2", b"3"]
    assert len(set(waits.values())) == len(waits), "a partition of the retry topic holds one delay"
    assert sum(status == "completed" for status in statuses(stage).values()) == 19
    began_ms = {one["attempts"]: one["at"] / 1000 for one in receipts}
    for message in stage.read(stage.topics.retry):
        result = dict(message.headers())
        attempt = int(result["attempt"])
        waited_ms, meant_ms = int(result["not_before"]) - began_ms[attempt], 100 * 2 ** (attempt - 1)
        assert 0.9 * meant_ms - 25 <= waited_ms <= 1.1 * meant_ms + 25, attempt


async def test_an_event_that_becomes_valid_is_completed_by_the_retry_role(stage: Stage, lago: Lago) -> None:
    await lago.fault(kind="poison", transaction_id="e-3", count=4)
    put(stage, [event(n) for n in range(5)])
    async with http_client(trust_env=False) as http:
        parts = stage.parts(delivery=quick_delivery(lago, http), retry_delay_s=0.2)
        async with stage.running("sink", parts), stage.running("retry", parts):
            await soon(lambda: set(statuses(stage).values()) == {"completed"}, limit_s=30)
    assert (await lago.stats())["totals"]["calls"] == 5


async def test_a_record_that_is_no_event_is_a_dead_letter(stage: Stage, lago: Lago) -> None:
    put(stage, [event(1), b"\0nonsense", event(2)])
    async with (
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 2)
    assert [message.value() for message in stage.read(stage.topics.dlq)] == [b"\0nonsense"]


async def test_one_bad_event_in_each_batch_of_a_hundred_does_not_affect_the_others(stage: Stage, lago: Lago) -> None:
    """Lago stores a batch completely or not at all: the other 99 are posted again at once, the bad one is reported with
    Lago's reason.
    """
    bad = {7, 150, 299}
    events = [event(n) for n in range(300)]
    for number in bad:
        events[number].timestamp = "2026-03-01T12:00:00Z"
    put(stage, events)
    async with (
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 300)
    stats = await lago.stats()
    assert (stats["totals"]["calls"], stats["posts"]) == (297, 6)
    assert statuses(stage) == {f"e-{n}": "failed" if n in bad else "completed" for n in range(300)}
    dead_letters = [dict(dead_letter.headers()) for dead_letter in stage.read(stage.topics.dlq)]
    assert {dead_letter["last_error"] for dead_letter in dead_letters} == {
        b"invalid_timestamp: timestamp: invalid_format"
    }
    assert {int(dead_letter["origin_offset"]) for dead_letter in dead_letters} == bad


async def test_an_id_twice_in_a_batch_is_billed_once_and_two_events_under_one_id_are_reported(
    stage: Stage, lago: Lago
) -> None:
    put(stage, [event(1), event(2), event(1), event(3), event(2, cents="9")])
    async with (
        http_client(trust_env=False) as http,
        stage.running("sink", stage.parts(delivery=quick_delivery(lago, http))),
    ):
        await soon(lambda: len(stage.sensors.receipts) == 5)
    stats = await lago.stats()
    assert (stats["totals"]["events"], stats["totals"]["cents"]) == (3, "4.5")
    (dead_letter,) = stage.read(stage.topics.dlq)
    headers = dict(dead_letter.headers())
    assert (headers["reason"], headers["origin_offset"]) == (b"id_conflict", b"4")


async def test_a_batch_of_only_bad_events_fails_alone(stage: Stage, lago: Lago) -> None:
    """Each of its events is isolated and retried, while the batches beside it pass."""
    poison = {f"e-{number}" for number in range(100, 110)}
    for name in poison:
        await lago.fault(kind="poison", transaction_id=name)
    put(stage, [event(n) for n in range(300)])
    async with http_client(trust_env=False) as http:
        sink = stage.parts(delivery=quick_delivery(lago, http), retry_delay_s=0.05, max_retries=1)
        retry = replace(sink, delivery=partial(quick_delivery, lago, http))
        async with stage.running("sink", sink), stage.running("retry", retry):
            await soon(lambda: set(statuses(stage).values()) == {"completed", "failed"}, limit_s=30)
    assert (await lago.stats())["totals"]["calls"] == 290
    dead = stage.read(stage.topics.dlq)
    assert {dict(dead_letter.headers())["attempts"] for dead_letter in dead} == {b"2"}, (
        "the first, and as many as MAX_RETRIES says"
    )
    dead_letters = [msgspec.json.decode(dead_letter.value()) for dead_letter in dead]
    assert {dead_letter["transaction_id"] for dead_letter in dead_letters} == poison
    assert len(dead_letters) == len(poison)


@pytest.mark.parametrize(
    "outage",
    [
        {"kind": "drop", "path": "/", "method": "*"},
        {"kind": "status", "status": 503, "path": "/", "method": "*"},
        {"kind": "status", "status": 401},
        {"kind": "garbage_200", "path": "/", "method": "*"},
        *({"kind": "status", "status": status, "body": "<html>no</html>"} for status in (400, 413, 422)),
        {"kind": "status", "status": 400, "body": {"message": "Bad Request"}, "path": "/", "method": "*"},
    ],
    ids=lambda outage: str(outage.get("status", outage["kind"])),
)
async def test_in_an_outage_no_event_is_given_up(stage: Stage, lago: Lago, outage: dict[str, Any]) -> None:
    """Lago is unavailable, broken, refuses the key, or another server answers: events are held, and delivered
    afterwards.
    """
    await lago.fault(**outage, duration_s=1.5)
    put(stage, [event(n) for n in range(450)])
    async with http_client(trust_env=False) as http:
        delivery = quick_delivery(lago, http, isolate_after=50, alone_after=200)
        async with stage.running("sink", stage.parts(delivery=delivery)):
            await soon(lambda: len(stage.sensors.receipts) == 450, limit_s=20)
    assert (await lago.stats())["totals"]["events"] == 450
    assert set(statuses(stage).values()) == {"completed"}
    assert stage.read(stage.topics.dlq) == stage.read(stage.topics.retry) == []


@pytest.mark.parametrize("name", ["sink", "retry"])
async def test_a_lost_fetch_batch_is_fetched_again(stage: Stage, lago: Lago, name: str) -> None:
    async with (
        http_client(trust_env=False) as http,
        stage.running(name, stage.parts(delivery=quick_delivery(lago, http))) as role,
    ):
        await opened(role)
        partition_task, lost = role.partition_tasks[0], []
        offer = partition_task.offer

        def losing(fetch_batch: Any) -> None:
            if lost:
                offer(fetch_batch)
            lost.append(fetch_batch)

        partition_task.offer = losing  # type: ignore[method-assign]
        topic = stage.topics.events if name == "sink" else stage.topics.retry
        for number in range(5):
            stage.producer.produce(topic, msgspec.json.encode(event(number)), "sub", partition=0)
        stage.producer.flush(10 * PATIENCE)
        await soon(lambda: len(stage.sensors.receipts) == 5)
        assert partition_task.gaps + stage.sensors.missing == 1
    assert (await lago.stats())["totals"]["calls"] == 5
