"""The projector with real Kafka and real Postgres: the tables have the content of the topics, each row once."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.postgres.migrate import migrate
from schemas.money import ZERO
from schemas.records import LagoEvent
from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.database import Watching, fresh_database, projector_parts, rows, until
from tests.support.enriched import put, usage
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.postgres import Postgres
from tests.support.posting import quick_delivery
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.stage import Stage


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=time.time) as sandbox:
        await sandbox.plan()
        await sandbox.subscribe("sub-a", "org-a", subscription_at="2026-01-01T00:00:00Z")
        yield sandbox


def now_calls(numbers: range, customer: str = "acme", **fields: object) -> list[Raw]:
    at = time.time_ns() // 1000
    return [raw(0, slp(n, at_us=at, **fields), customer=customer, received_us=at) for n in numbers]


async def test_the_tables_agree_with_the_ledger_and_with_lago(stage: Stage, database: str, lago: Lago) -> None:
    """From the call to its invoice line: nothing is counted that was not billed, and nothing billed that was not
    counted.
    """
    stage.map("acme", "org-a", "sub-a")
    calls = [*now_calls(range(200)), *now_calls(range(200, 240), cost="0"), *now_calls(range(240, 260), "nobody")]
    stage.put([*calls, *calls[:50]])
    async with (
        http_client(trust_env=False) as http,
        projector_parts(stage, database) as base,
    ):
        delivery = quick_delivery(lago, http)
        parts = replace(base, delivery=lambda: delivery, retry_delay_s=0.1)
        async with (
            stage.running("sink", parts),
            stage.running("retry", parts),
            stage.running("project", parts),
            stage.running("meter", parts) as meter,
        ):
            await until(
                database, "SELECT sum(calls)::int FROM lago_events WHERE status = 'completed'", lambda n: n == 200
            )
            await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 260)
            counters: list[Any] = [
                partition_task.work._ledger.state.position.counters for partition_task in meter.partition_tasks.values()
            ]
    sums = {
        name: (
            sum(getattr(one, name).calls for one in counters),
            sum((getattr(one, name).cost for one in counters), ZERO),
        )
        for name in ("folded", "unbilled", "sealed")
    }
    kinds = "CASE WHEN decision IN ('billable', 'failed_with_cost') THEN 'folded' ELSE 'unbilled' END"
    assert {
        kind: (calls, cost)
        for kind, calls, cost in await rows(
            database, f"SELECT {kinds}, count(*), sum(cost_usd) FROM llm_usage_log GROUP BY 1"
        )
    } == {name: sums[name] for name in ("folded", "unbilled")}
    assert Counter(dict(await rows(database, "SELECT decision, count(*) FROM llm_usage_log GROUP BY 1"))) == {
        name: count for name, count in stage_calls(parts).items() if name != "duplicate"
    }
    [(cents,)] = await rows(database, "SELECT sum(amount_cents) FROM lago_events")
    assert cents == sums["sealed"][1] * 100 == Decimal((await lago.stats())["totals"]["cents"])
    assert await rows(
        database, "SELECT status, error_message, count(*) > 0 FROM event_queue GROUP BY 1, 2 ORDER BY 1"
    ) == [
        ("completed", None, True),
        ("held", "no_mapping", True),
    ]


def stage_calls(parts: Any) -> dict[str, int]:
    """The meter's decisions."""
    sensors: Watching = parts.sensors
    return sensors.calls


async def test_a_bad_event_is_visible_in_retry_and_as_failed_with_its_reason(
    stage: Stage, database: str, lago: Lago
) -> None:
    stage.map("acme", "org-a", "sub-a")
    stage.put(now_calls(range(5)))
    async with http_client(trust_env=False) as http, projector_parts(stage, database) as base:
        delivery = quick_delivery(lago, http)
        parts = replace(base, delivery=lambda: delivery, retry_delay_s=2.0, max_retries=1)
        async with stage.running("project", parts):
            async with stage.running("meter", parts):
                [(poisoned, status)] = await until_rows(database, "SELECT transaction_id, status FROM event_queue")
                assert status == "pending"
            await lago.fault(kind="poison", transaction_id=poisoned)
            async with stage.running("sink", parts), stage.running("retry", parts):
                await until(database, "SELECT status FROM event_queue", lambda status: status == "processing")
                await until(database, "SELECT status FROM event_queue", lambda status: status == "failed", 30)
    [(message, retries, retried, processed)] = await rows(
        database, "SELECT error_message, retry_count, last_retry_at, processed_at FROM event_queue"
    )
    assert message and retries == 2 and retried < processed


async def until_rows(url: str, query: str) -> list[tuple[Any, ...]]:
    deadline = time.monotonic() + 20 * PATIENCE
    while not (found := await rows(url, query)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return found


async def test_held_usage_moves_to_its_event_once_it_is_mapped(stage: Stage, database: str) -> None:
    stage.put(now_calls(range(20)))
    async with (
        projector_parts(stage, database) as parts,
        stage.running("meter", parts),
        stage.running("project", parts),
    ):
        pending = "SELECT coalesce(sum(calls), 0)::int FROM held_parts WHERE transaction_id IS NULL"
        await until(database, pending, lambda calls: calls == 20)
        assert set(await rows(database, "SELECT status, error_message, customer_mapping_id FROM event_queue")) == {
            ("held", "no_mapping", "acme")
        }
        stage.map("acme", "org-a", "sub-a")
        await until(database, "SELECT coalesce(sum(calls), 0)::int FROM lago_events", lambda calls: calls == 20)
        await until(database, pending, lambda calls: calls == 0)
    assert set(await rows(database, "SELECT external_customer_id, error_message FROM event_queue")) == {("org-a", None)}
    assert await rows(database, "SELECT sum(calls)::int FROM held_parts WHERE transaction_id IS NOT NULL") == [(20,)]


async def test_rejected_calls_can_be_looked_up(stage: Stage, database: str) -> None:
    """Calls beyond the dedupe retention are looked up there before they are billed."""
    old = time.time_ns() // 1000 - 3 * 86_400 * 1_000_000
    stage.put([*now_calls(range(1)), raw(0, slp(1, at_us=old), received_us=time.time_ns() // 1000)])
    async with (
        projector_parts(stage, database) as parts,
        stage.running("meter", parts),
        stage.running("project", parts),
    ):
        await until(database, "SELECT count(*) FROM rejected_calls", lambda count: count == 1)
    assert await rows(database, "SELECT reason, stage, customer_id, cost_usd FROM rejected_calls") == [
        ("beyond_horizon", "meter", "acme", Decimal("0.000145"))
    ]


async def test_a_lost_fetch_batch_is_fetched_again(stage: Stage, database: str) -> None:
    async with projector_parts(stage, database) as parts, stage.running("project", parts) as role:
        place = f"{stage.topics.enriched}-0"
        await soon(lambda: place in role.partition_tasks and role.partition_tasks[place].expected is not None)
        partition_task, lost = role.partition_tasks[place], []
        offer = partition_task.offer

        def losing(fetch_batch: Any) -> None:
            if lost:
                offer(fetch_batch)
            lost.append(fetch_batch)

        partition_task.offer = losing  # type: ignore[method-assign]
        put(stage, range(100), partition=0)
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 100)
        assert lost and partition_task.gaps + parts.sensors.missing >= 1  # type: ignore[attr-defined]


async def test_while_postgres_is_unavailable_rows_wait_and_none_is_lost(
    stage: Stage, database: str, postgres: Postgres
) -> None:
    """For an hour or a second: the topic is the queue, and no record becomes a dead letter because of Postgres."""
    async with projector_parts(stage, database) as parts, stage.running("project", parts):
        put(stage, range(100))
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 100)
        await asyncio.to_thread(postgres.kill)
        put(stage, range(100, 300))
        sensors: Any = parts.sensors
        await soon(lambda: sensors.failures.get("postgres_away", 0) > 3)
        assert any(oldest is not None for oldest in sensors.oldest.values())
        await asyncio.to_thread(postgres.restart)
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 300)
        assert sensors.halted == []
        await soon(lambda: all(oldest is None for oldest in sensors.oldest.values()))
    assert await rows(database, "SELECT sum(calls)::int FROM held_parts") == [(30,)]


async def test_a_projector_that_starts_before_its_tables_exist_waits_for_them(stage: Stage, postgres_url: str) -> None:
    """A new version may start before its migrations have run."""
    put(stage, range(10))
    async with (
        fresh_database(postgres_url) as url,
        projector_parts(stage, url) as parts,
        stage.running("project", parts),
    ):
        sensors: Any = parts.sensors
        await soon(lambda: sensors.failures.get("postgres_schema", 0) > 2)
        await migrate(url)
        await until(url, "SELECT count(*) FROM llm_usage_log", lambda count: count == 10)


async def forget_before(stage: Stage, partition: int, offset: int) -> None:
    """Delete old records, as retention does."""
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    place = TopicPartition(stage.topics.enriched, partition, offset)
    [done] = admin.delete_records([place]).values()
    await asyncio.to_thread(done.result)


async def test_the_first_start_begins_at_the_start_of_the_log(stage: Stage, database: str) -> None:
    put(stage, range(100), partition=0)
    await forget_before(stage, 0, 40)
    async with projector_parts(stage, database) as parts, stage.running("project", parts):
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 60)


async def test_a_log_that_starts_after_the_projected_position_halts_only_its_partition(
    stage: Stage, database: str
) -> None:
    put(stage, range(100), partition=0)
    async with projector_parts(stage, database) as parts, stage.running("project", parts):
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 100)
    put(stage, range(100, 200), partition=0)
    await forget_before(stage, 0, 150)
    async with projector_parts(stage, database) as parts, stage.running("project", parts):
        put(stage, range(200, 210), partition=1)
        sensors: Any = parts.sensors
        await soon(lambda: sensors.halted == [(stage.topics.enriched, 0, "offset_out_of_range")])
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 110)


async def test_a_recreated_topic_halts_its_partitions(stage: Stage, database: str) -> None:
    async with projector_parts(stage, database) as parts:
        other = replace(parts, topic_ids={**parts.topic_ids, stage.topics.enriched: "another"})
        put(stage, range(10))
        async with stage.running("project", parts):
            await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 10)
        async with stage.running("project", other):
            sensors: Any = parts.sensors
            await soon(lambda: len(sensors.halted) == 2)
    assert {reason for _, _, reason in sensors.halted} == {"topic_recreated"}


async def test_a_record_that_cannot_become_a_row_is_skipped_alone_and_listed(stage: Stage, database: str) -> None:
    """Earlier an impossible date ended the role, and one number in an event's JSON its partition task; both stopped
    forever.
    """
    put(stage, range(50), partition=0)
    impossible = msgspec.json.encode(usage(50, start="2026-11-20T99:00:00.000000Z"))
    stage.producer.produce(stage.topics.enriched, impossible, b"acme", partition=0)
    put(stage, range(51, 60), partition=0)
    sound = msgspec.json.encode(LagoEvent("d-t-0-0", "sub", "ai_usage", "1795176000.000", "1.45", {}))
    for value in (
        sound,
        sound.replace(b"{}", b'{},"x":1e400000').replace(b"0-0", b"0-1"),
        sound.replace(b"0-0", b"0-2"),
    ):
        stage.producer.produce(stage.topics.events, value, b"sub", partition=0)
    stage.producer.flush(10 * PATIENCE)
    async with projector_parts(stage, database) as parts, stage.running("project", parts):
        sensors: Any = parts.sensors
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 59)
        await until(database, "SELECT count(*) FROM lago_events", lambda count: count == 2)
        await soon(lambda: sensors.skipped == {"unreadable": 1, "row_refused": 1})
        assert sensors.halted == []
    result = await meterbridge(stage, "db", "unprojected", "--json", DATABASE_URL=database)
    kept = [(one["topic"], one["partition"], one["offset"], one["reason"]) for one in result.json["records"]]
    assert sorted(kept) == [(stage.topics.events, 0, 1, "row_refused"), (stage.topics.enriched, 0, 50, "unreadable")]
    assert "99:00" not in result.out
    # The call has no row, and was counted all the same: the log no longer vouches for the time before it.
    [(since,)] = await rows(database, "SELECT since > '2020-01-01' FROM log_completeness WHERE partition = 0")
    assert since
    await rows(database, "UPDATE projector_offsets SET next = 0 WHERE topic = $1", stage.topics.events)
    async with projector_parts(stage, database) as parts, stage.running("project", parts):
        again = "SELECT next FROM projector_offsets WHERE partition = 0 AND topic LIKE '%lago.events'"
        await until(database, again, lambda following: following == 3)
    assert await rows(database, "SELECT count(*) FROM unprojected_records") == [(2,)]
