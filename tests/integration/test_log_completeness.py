"""The usage log knows since when it is complete; calls that it cannot decide about are not billed a second time."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import TopicPartition as Partition
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.postgres.migrate import migrate, migrations
from schemas.moments import HOUR_US, SECOND_US, to_iso
from streams.agents.projector import PartitionPosition
from tests.support.calls import Raw, raw, slp
from tests.support.command import Ended, meterbridge
from tests.support.database import fresh_database, projector_parts, rows, until
from tests.support.eventually import soon
from tests.support.history import TOPICS, TopicRecord
from tests.support.projection import Writer, usage
from tests.support.stage import Stage

SINCE = "SELECT since::text FROM log_completeness ORDER BY partition"


def hours_ago(hours: float) -> int:
    return time.time_ns() // 1000 - int(hours * HOUR_US)


def past(number: int, hours: float) -> Raw:
    """A call that ended, and was received, this long ago."""
    at = hours_ago(hours)
    return raw(0, slp(number, at_us=at, cost="10"), received_us=at)


def forget_records(stage: Stage, topic: str) -> None:
    """Delete old records, as retention does."""
    admin = AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    places = [TopicPartition(topic, number, -1) for number in range(stage.settings.kafka_partitions)]
    for future in admin.delete_records(places).values():
        future.result()


def copies(path: Path, calls: list[Raw]) -> str:
    """Return the same calls as a file."""
    path.write_text("\n".join(json.dumps(json.loads(call.value or b"")["call"]) for call in calls))
    return str(path)


@asynccontextmanager
async def metering(stage: Stage) -> AsyncIterator[None]:
    async with stage.running("meter", stage.parts()):
        yield


async def billed_before_there_was_postgres(stage: Stage) -> list[Raw]:
    """Five calls of 30 hours ago are billed; the meter's records about them have expired in their topic."""
    stage.map("acme", "org", "sub")
    old = [past(n, 30) for n in range(5)]
    async with metering(stage):
        stage.put(old)
        await soon(lambda: stage.sensors.calls.get("billable") == 5, limit_s=30)
        stage.put([past(100, 0)])  # a day passes on the partition's clock
        await soon(lambda: stage.sensors.calls.get("billable") == 6, limit_s=30)
    forget_records(stage, stage.topics.enriched)
    return old


async def backfill(stage: Stage, database: str, file: str, *words: str) -> Ended:
    words = ("backfill", "--source", "jsonl", "--shape", "slp", "--file", file, *words, "--json")
    return await meterbridge(stage, *words, DATABASE_URL=database)


async def test_calls_counted_before_the_log_started_are_not_billed_again(
    stage: Stage, database: str, tmp_path: Path
) -> None:
    """Postgres was added later: an empty log does not prove that nothing was billed."""
    old = await billed_before_there_was_postgres(stage)
    file = copies(tmp_path / "old.jsonl", old)
    async with projector_parts(stage, database) as project, metering(stage), stage.running("project", project):
        stage.put([past(200, 0)])
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 1)
        done = await backfill(stage, database, file)
        assert (done.code, done.json["missing"], done.json["refused"]) == (1, 0, {"log_incomplete": 5}), done.err
        stage.put(old)  # beyond the dedupe retention by now
        await soon(lambda: stage.sensors.calls.get("rejected:beyond_horizon") == 5, limit_s=30)
        done = await meterbridge(stage, "dlq", "requeue", "--json", DATABASE_URL=database)
        assert (done.json["requeued"], done.json["reasons"]) == (0, {"log_incomplete": 5}), done.err
        assert len(stage.read(stage.topics.raw)) == 12
        result = await backfill(stage, database, file, "--trust-log-from", "40h", "--dry-run")
        assert (result.code, result.json["missing"]) == (0, 5), result.err
        words = ("dlq", "requeue", "--limit", "2", "--trust-log-from", "40h", "--json")
        done = await meterbridge(stage, *words, DATABASE_URL=database)
        assert (done.json["requeued"], done.json["reasons"]) == (2, {}), done.err
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 3)
        result = await backfill(stage, database, file, "--trust-log-from", "40h")
        assert (result.code, result.json["known"], result.json["missing"]) == (0, 2, 3), result.err
    line = stage.values(stage.topics.audit)[-1]
    assert (line["action"], line["target"]["trust_log_from"]) == ("backfill", "40h")


async def test_a_log_without_a_projector_decides_nothing(stage: Stage, database: str, tmp_path: Path) -> None:
    file = copies(tmp_path / "old.jsonl", await billed_before_there_was_postgres(stage))
    done = await backfill(stage, database, file)
    assert (done.json["missing"], done.json["refused"]) == (0, {"log_incomplete": 5}), done.err


async def test_the_log_decides_about_a_call_after_its_start(stage: Stage, database: str, tmp_path: Path) -> None:
    await billed_before_there_was_postgres(stage)
    lost = past(300, 0)
    async with projector_parts(stage, database) as project, metering(stage), stage.running("project", project):
        stage.put([past(200, 0)])
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == 1)
        # As if the projector had begun an hour earlier: a call's clock may be ten minutes off.
        await rows(database, "UPDATE log_completeness SET since = now() - interval '1 hour'")
        done = await backfill(stage, database, copies(tmp_path / "lost.jsonl", [lost]))
        assert (done.code, done.json["missing"]) == (0, 1), done.out + done.err


def at(offset: int, seconds: int, **fields: Any) -> TopicRecord:
    one = usage(offset, start=to_iso(seconds * SECOND_US), end=to_iso(seconds * SECOND_US), **fields)
    return TopicRecord(offset, seconds * 1000, b"acme", msgspec.json.encode(one))


async def test_a_log_that_started_with_its_topic_is_complete(url: str) -> None:
    async with Writer(url) as writer:
        await writer.take(TOPICS.enriched, 0, [at(0, 1_795_176_000)])
    assert await rows(url, SINCE) == [("-infinity",)]


async def test_a_log_that_started_later_is_complete_from_its_first_record(url: str) -> None:
    async with Writer(url) as writer:
        await writer.take(TOPICS.enriched, 0, [at(7, 1_795_176_000), at(8, 1_795_176_060)])
        await writer.take(TOPICS.enriched, 0, [at(9, 1_795_179_600)])
    assert await rows(url, "SELECT extract(epoch FROM since)::bigint FROM log_completeness") == [(1_795_176_000,)]


async def test_a_log_that_continued_at_its_position_stays_as_complete_as_it_was(url: str) -> None:
    for offset in (0, 1):
        async with Writer(url) as writer:
            await writer.take(TOPICS.enriched, 0, [at(offset, 1_795_176_000 + offset)])
    assert await rows(url, SINCE) == [("-infinity",)]


async def test_a_log_that_was_told_to_start_after_a_gap_says_so(url: str) -> None:
    """The remedy for `offset_out_of_range` is to delete the projector's position."""
    async with Writer(url) as writer:
        await writer.take(TOPICS.enriched, 0, [at(0, 1_795_176_000)])
        await rows(url, "DELETE FROM projector_offsets")
    async with Writer(url) as writer:
        await writer.take(TOPICS.enriched, 0, [at(50, 1_795_179_600)])
    assert await rows(url, "SELECT extract(epoch FROM since)::bigint FROM log_completeness") == [(1_795_179_600,)]


async def test_another_topic_from_its_beginning_does_not_make_the_log_complete(url: str) -> None:
    async with Writer(url) as writer:
        await writer.take(TOPICS.enriched, 0, [at(0, 1_795_176_000)])
        await rows(url, "DELETE FROM projector_offsets")
        await writer.projection.begin(Partition(TOPICS.enriched, 0), PartitionPosition("another", 0))
    assert await rows(url, SINCE) == [("infinity",)]


async def test_rows_of_an_older_release_are_complete_from_their_first_call(postgres_url: str) -> None:
    async with fresh_database(postgres_url) as url:
        await migrate(url, [one for one in migrations() if one.version < 6])
        await rows(url, "INSERT INTO projector_offsets VALUES ('x.litellm.usage.enriched', 0, 'id', 9)")
        await rows(url, "INSERT INTO projector_offsets VALUES ('x.billing.receipts', 0, 'id', 9)")
        await rows(url, "SELECT ensure_usage_month('2026-10-15')")
        await rows(
            url,
            """INSERT INTO llm_usage_log VALUES (
            '\\x00112233445566778899aabbccddeeff', '2026-10-01', '2026-10-31 23:59:59Z', '2026-11-01Z', '2026-11-02Z', 'a',
            'billable', 'success', 'c', 'end_user', 'o', 's', 'm', 'p', 't', 1, 2, 3, 0, 0, 0.000145, 'a', 'r', '', '', '',
            '', '', 'part-1', '', '', 0, 7)""",
        )
        await migrate(url)
        found = await rows(url, "SELECT partition, topic_id, since AT TIME ZONE 'UTC' FROM log_completeness")
    assert [(one, two, str(three)) for one, two, three in found] == [(0, "id", "2026-11-02 00:00:00")]
