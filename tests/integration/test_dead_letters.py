"""Dead letters and retries with real Kafka: no part of a record is lost, and no record waits forever."""

import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from confluent_kafka import Producer

from streams.components import Components
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import event, limit_records, opened, put, put_into_retry, quick_delivery, statuses
from tests.support.sandbox import Lago
from tests.support.stage import Stage


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    return Stage(kafka.bootstrap, topic_prefix, partitions=1)


@pytest.fixture
async def parts(stage: Stage, lago: Lago) -> AsyncIterator[Components]:
    async with http_client(trust_env=False) as http:
        yield stage.parts(delivery=quick_delivery(lago, http), retry_delay_s=0.1)


async def accepted_at(lago: Lago, transaction_id: str) -> list[float]:
    lines = (await lago.http.get("/__events")).text.splitlines()
    copies = [msgspec.json.decode(line) for line in lines]
    return [copy["accepted_at"] for copy in copies if copy["transaction_id"] == transaction_id]


async def test_a_dead_letter_is_the_unchanged_record_with_all_its_headers(stage: Stage, parts: Components) -> None:
    """Its sender may want it back: also headers that are no text, have an unknown name, or occur twice."""
    theirs = [("seal_seq", b"7"), ("raw_partition", b"3"), ("manifest", b"\xff no json"), ("x", b"1"), ("x", b"2")]
    raw = Producer({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    raw.produce(stage.topics.events, b"\0\xff{", b"\xfe key", headers=[*theirs, ("none", None), ("attempt", b"\xff")])
    raw.produce(stage.topics.events, None, None)
    bad = msgspec.json.encode({**msgspec.to_builtins(event(1)), "timestamp": "yesterday", "more": [1.10]})
    raw.produce(stage.topics.events, bad + b" \n", "sub", headers=theirs)
    raw.flush(10 * PATIENCE)
    async with stage.running("sink", parts):
        await soon(lambda: len(stage.read(stage.topics.dlq)) == 3)
    dead_letters = stage.read(stage.topics.dlq)
    assert [(dead_letter.key(), dead_letter.value()) for dead_letter in dead_letters] == [
        (b"\xfe key", b"\0\xff{"),
        (None, None),
        (b"sub", bad + b" \n"),
    ]
    assert dead_letters[0].headers()[:6] == [*theirs, ("none", None)]
    assert dead_letters[2].headers()[:5] == theirs
    assert dict(dead_letters[2].headers())["reason"] == b"invalid_timestamp"
    assert dict(dead_letters[2].headers())["__connect.errors.offset"] == b"2"


async def test_if_a_dead_letter_cannot_be_written_its_offset_is_not_committed(
    stage: Stage, lago: Lago, parts: Components
) -> None:
    """The broker refuses it: the worker ends, no event of the batch is settled, and the next worker settles all of
    them.
    """
    limit_records(stage, stage.topics.dlq, 200)
    put(stage, [event(0), b"no event, and too long for the broker: " + b"x" * 500, event(1)])
    ended: list[int] = []
    async with stage.running("sink", parts) as role:
        role._leave = ended.append
        await soon(lambda: ended, limit_s=20)
    assert stage.read(stage.topics.dlq) == stage.values(stage.topics.receipts) == []
    limit_records(stage, stage.topics.dlq, 1 << 20)
    async with stage.running("sink", parts):
        await soon(lambda: len(stage.read(stage.topics.dlq)) == 1)
    assert statuses(stage) == {"e-0": "completed", "e-1": "completed"}
    assert len(stage.values(stage.topics.receipts)) == 2
    assert (await lago.stats())["totals"]["events"] == 2


async def test_a_requeued_dead_letter_is_delivered_at_once(stage: Stage, lago: Lago, parts: Components) -> None:
    await lago.fault(kind="poison", transaction_id="e-5")
    put(stage, [event(n) for n in range(8)])
    async with stage.running("sink", parts), stage.running("retry", parts):
        await soon(lambda: statuses(stage).get("e-5") == "failed", limit_s=30)
        await lago.http.delete("/__faults")
        (dead_letter,) = stage.read(stage.topics.dlq)
        now_ms = time.time_ns() // 1_000_000
        again = [("attempt", b"0"), ("not_before", b"%d" % now_ms), ("requeued", b"1")]
        put_into_retry(stage, dead_letter.value(), [*dead_letter.headers(), *again])
        await soon(lambda: statuses(stage).get("e-5") == "completed")
    assert (await lago.stats())["totals"]["events"] == 8
    last = stage.values(stage.topics.receipts)[-1]
    assert (last["transaction_id"], last["status"], last.get("attempts", 0)) == ("e-5", "completed", 0)


@pytest.mark.parametrize("header", [("requeued", b"1"), ("maybe_sent", b"2")], ids=["requeued", "named as a repeat"])
async def test_a_requeued_conflict_is_a_conflict_again_after_a_restart_too(
    stage: Stage, lago: Lago, parts: Components, header: tuple[str, bytes]
) -> None:
    """A restarted role takes events that Lago has for its own posts; a dead letter must be looked up. So must an event that
    Lago has refused as a repeat although nothing of ours explains it.
    """
    await lago.post(msgspec.to_builtins(event(1, cents="9")))
    put_into_retry(stage, msgspec.json.encode(event(1)), [header, ("attempt", b"0"), ("not_before", b"0")])
    async with stage.running("retry", parts):
        await soon(lambda: statuses(stage).get("e-1") == "failed")
    assert dict(stage.read(stage.topics.dlq)[0].headers())["reason"] == b"id_conflict"


async def test_a_restarted_retry_waits_until_its_time_and_not_longer(
    stage: Stage, lago: Lago, parts: Components
) -> None:
    due_ms = time.time_ns() // 1_000_000 + 3_000
    put_into_retry(stage, msgspec.json.encode(event(1)), [("attempt", b"1"), ("not_before", b"%d" % due_ms)])
    async with stage.running("retry", parts) as role:
        await opened(role)
    assert await accepted_at(lago, "e-1") == []
    async with stage.running("retry", parts):
        await soon(lambda: statuses(stage).get("e-1") == "completed")
    (moment,) = await accepted_at(lago, "e-1")
    assert due_ms / 1000 <= moment < due_ms / 1000 + 5


async def test_an_impossible_retry_time_does_not_block_its_partition(
    stage: Stage, lago: Lago, parts: Components
) -> None:
    """A clock was wrong once: the year 3000 is not waited for, but an hour after the record was written."""
    then_ms = time.time_ns() // 1_000_000 - 3_600_000
    headers = [("not_before", b"32503680000000"), ("attempt", b"1")]
    stage.producer.produce(
        stage.topics.retry, msgspec.json.encode(event(1)), "sub", partition=0, headers=headers, timestamp=then_ms
    )
    stage.producer.flush(10 * PATIENCE)
    async with stage.running("retry", parts):
        await soon(lambda: statuses(stage).get("e-1") == "completed")
