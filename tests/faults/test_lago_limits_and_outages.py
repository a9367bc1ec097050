"""Real workers with real Kafka, and a Lago that limits, does not answer, or refuses the key: nothing is lost or billed
twice.
"""

import asyncio
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from schemas.records import LagoEvent
from tests.faults.kill_at_step import worker
from tests.support.eventually import PATIENCE, soon, within
from tests.support.kafka import Kafka
from tests.support.posting import put_into_retry, statuses
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

SINK, RETRY = ["connectors", "worker", "--only", "sink"], ["connectors", "worker", "--only", "retry"]
LIMIT_S = 60.0


def put(stage: Stage, since: int, count: int) -> None:
    """Put events of enough subscriptions to use every partition."""
    at = f"{int(time.time())}.000"
    for number in range(since, since + count):
        subscription = f"sub-{number % 7}"
        event = LagoEvent(f"e-{number}", subscription, "ai_usage", at, "1.5", {"unit": "1", "requests": "1"})
        stage.producer.produce(stage.topics.events, msgspec.json.encode(event), subscription)
    stage.producer.flush(10 * PATIENCE)


async def copies(lago: Lago) -> Counter[str]:
    return Counter(one["transaction_id"] for one in await accepted(lago))


async def accepted(lago: Lago) -> list[dict[str, object]]:
    """Return every copy that Lago has, in order of arrival."""
    lines = (await lago.http.get("/__events")).text.splitlines()
    return sorted((msgspec.json.decode(line) for line in lines), key=lambda one: float(one["accepted_at"]))


async def all_stored(lago: Lago, events: int) -> None:
    async with within(LIMIT_S):
        while (await lago.stats())["totals"]["events"] < events:
            await asyncio.sleep(0.05)


async def test_two_workers_respect_a_limit_that_neither_knows_alone_and_an_outage_loses_no_event(
    kafka: Kafka, topic_prefix: str, tmp_path: Path
) -> None:
    """120 windows/s at 200 requests/s, one event a request; then Lago is unavailable for 4 s, and the backlog drains.

    How fast it drains, in virtual time: tests/unit/streams/core/delivery/test_shared_rate_limit.py.
    """
    offered, limit = 120, 200
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=4)
    async with lago_sandbox(clock=time.time, rate_limit=limit) as lago:
        options = {"BATCH_SIZE": "1"}
        async with (
            worker(SINK, stage, lago, tmp_path, name="one", **options) as one,
            worker(SINK, stage, lago, tmp_path, name="other", **options) as other,
        ):
            one.start()
            other.start()
            put(stage, 0, 50)
            await all_stored(lago, 50)
            sent = 50
            for punctuate in range(16):
                if punctuate == 4:
                    await lago.fault(kind="drop", path="/", method="*", duration_s=4)
                    since = time.time() + 4
                await asyncio.to_thread(put, stage, sent, offered // 2)
                sent += offered // 2
                await asyncio.sleep(0.5)
            await all_stored(lago, sent)
        moments = [float(str(copy["accepted_at"])) for copy in await accepted(lago)]
        assert await copies(lago) == Counter(f"e-{number}" for number in range(sent))
        assert (await lago.stats())["limited"] == 0
    drained = [moment for moment in moments if moment >= since]
    assert len(drained) > 3 * offered


@pytest.mark.parametrize(("dedup", "copies_may_repeat"), [(False, False), (True, True)])
async def test_on_clickhouse_an_event_with_an_unknown_outcome_is_billed_once(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, *, dedup: bool, copies_may_repeat: bool
) -> None:
    """It is stored without an answer: without deduplication each event is looked up before it is sent again."""
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    async with lago_sandbox(clock=time.time, store="clickhouse", dedup=dedup) as lago:
        await lago.plan()
        await lago.subscribe("sub-0", "org", subscription_at="2026-01-01T00:00:00Z")
        await lago.fault(kind="timeout_after_accept", seconds=30, count=3)
        put(stage, 0, 400)
        options = {"LAGO_TIMEOUT": "1", "LAGO_CLICKHOUSE_DEDUP": str(dedup).lower()}
        async with worker(SINK, stage, lago, tmp_path, **options) as process:
            process.start()
            await soon(lambda: Counter(statuses(stage).values()) == {"completed": 400}, LIMIT_S)
        assert ((await copies(lago)).total() > 400) is copies_may_repeat
        stats = await lago.stats()
        assert (stats["totals"]["events"], stats["totals"]["calls"], stats["totals"]["cents"]) == (400, 400, "600")
        assert ("event_store_without_deduplication" in process.tail()) is not dedup


async def test_a_refused_key_that_is_repaired_loses_no_event(kafka: Kafka, topic_prefix: str, tmp_path: Path) -> None:
    """Events are held, not given up: no retry, no dead letter, and everything is delivered once the key is valid."""
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    async with lago_sandbox(clock=time.time, api_key=KEY) as lago:
        put(stage, 0, 250)
        async with worker(SINK, stage, lago, tmp_path, LAGO_API_KEY="expired") as process:
            process.start()
            async with within(LIMIT_S):
                while "event_store_unknown" not in process.tail():
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2)  # time enough to give something up: a refused event would be in its topic at once
            await process.terminate()
        assert stage.read(stage.topics.receipts) == stage.read(stage.topics.retry) == []
        async with worker(SINK, stage, lago, tmp_path) as process:
            process.start()
            await soon(lambda: Counter(statuses(stage).values()) == {"completed": 250}, LIMIT_S)
        assert await copies(lago) == Counter(f"e-{number}" for number in range(250))
        assert stage.read(stage.topics.dlq) == stage.read(stage.topics.retry) == []


async def test_a_retry_role_killed_while_it_waits_does_not_change_the_retry_time(
    kafka: Kafka, topic_prefix: str, lago: Lago, tmp_path: Path
) -> None:
    """Its successor does not post earlier, and does not restart the wait, which would add a minute."""
    stage = Stage(kafka.bootstrap, topic_prefix, partitions=1)
    due_ms = time.time_ns() // 1_000_000 + 12_000
    value = msgspec.json.encode(LagoEvent("e-1", "sub", "ai_usage", f"{due_ms // 1000}.000", "1", {"unit": "1"}))
    put_into_retry(stage, value, [("attempt", b"1"), ("not_before", b"%d" % due_ms), ("maybe_sent", b"0")])
    async with worker(["tests.faults.self_killing_worker", "retry", "-"], stage, lago, tmp_path) as process:
        process.start()
        await asyncio.sleep(4)  # it waits by now; if it does not, the law is the same
        await process.kill()
    assert (await lago.stats())["posts"] == 0
    async with worker(RETRY, stage, lago, tmp_path) as process:
        process.start()
        await soon(lambda: statuses(stage).get("e-1") == "completed", LIMIT_S)
    (copy,) = await accepted(lago)
    assert due_ms / 1000 <= float(str(copy["accepted_at"])) < due_ms / 1000 + 20
