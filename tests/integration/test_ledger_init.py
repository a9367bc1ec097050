"""How a halted ledger continues: skipped records are reported, no call is billed twice, and the partition continues
automatically.
"""

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.operations.ledger_init import place_of
from schemas.ledger import POSITION_KEY, Position
from streams.core.metering.step_changes import Changes
from streams.state.ledger import Ledger, LedgerCache
from streams.state.ledger_restart import EmittedTotals, RestartPosition, begin, plan
from tests.support.calls import Raw, raw, slp
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE, eventually, soon
from tests.support.kafka import Kafka
from tests.support.stage import Stage


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    stage = Stage(kafka.bootstrap, topic_prefix)
    stage.map("acme", "org", "sub")
    return stage


def calls(numbers: Sequence[int], ago_s: float = 0) -> list[Raw]:
    at = time.time_ns() // 1000 - int(ago_s * 1e6)
    return [raw(0, slp(n, at_us=at, cost="0.5"), received_us=at) for n in numbers]


def billed(stage: Stage) -> tuple[int, Decimal]:
    events = stage.values(stage.topics.events)
    cents = sum((Decimal(event["precise_total_amount_cents"]) for event in events), Decimal(0))
    return sum(int(event["properties"]["requests"]) for event in events), cents


def admin(stage: Stage) -> AdminClient:
    return AdminClient({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})


def cut_head(stage: Stage, before: int) -> None:
    client = admin(stage)  # a position without an owner has no answer
    for future in client.delete_records([TopicPartition(stage.topics.raw, 0, before)]).values():
        future.result(30 * PATIENCE)


def lose(stage: Stage, records: Sequence[Raw]) -> None:
    """Makes records that have offsets in partition 0 and are never read, as if a disk had lost them: those of an
    aborted transaction. Its end takes one more offset.
    """
    writer = Producer(
        {
            "bootstrap.servers": stage.settings.kafka_bootstrap_servers,
            "transactional.id": f"{stage.settings.topic_prefix}lost",
        }
    )
    reader = Consumer({"bootstrap.servers": stage.settings.kafka_bootstrap_servers, "group.id": "lost"})
    place = TopicPartition(stage.topics.raw, 0)
    end = reader.get_watermark_offsets(place, 30)[1] + len(records) + 1
    writer.init_transactions(30)
    writer.begin_transaction()
    for record in records:
        writer.produce(stage.topics.raw, record.value, record.key, timestamp=record.timestamp, partition=0)
    assert writer.flush(30 * PATIENCE) == 0
    writer.abort_transaction(30)
    # The coordinator answers before the marker is in the log: the next record must not take its offset.
    eventually(lambda: reader.get_watermark_offsets(place, 30)[1] == end)
    reader.close()


async def run(stage: Stage, count: int) -> None:
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage)[0] == count, limit_s=30)


async def init(stage: Stage, *words: str) -> tuple[int, list[dict[str, Any]]]:
    ended = await meterbridge(stage, "ledger", "init", "--json", *words)
    assert ended.out, ended.err
    return ended.code, ended.json["ledgers"]


async def reconciled(stage: Stage) -> str:
    ended = await meterbridge(stage, "reconcile", "--json")
    return "" if ended.code == 0 else ended.out + ended.err


async def test_a_correct_ledger_is_not_changed(stage: Stage) -> None:
    stage.put(calls(range(3)), partition=0)
    await run(stage, 3)
    for words in (("--from", "latest", "--yes"), ("--from", "2", "--partition", "0", "--yes")):
        code, result = await init(stage, *words)
        assert (code, {one["state"] for one in result}) == (1, {"sound"})
    assert stage.read(stage.topics.audit) == []


async def test_records_lost_at_the_start_are_skipped_and_reported_and_the_partition_continues_without_a_restart(
    stage: Stage,
) -> None:
    """Lost by retention while the meter was stopped: 3 were billed, 4 are gone, 5 are left, one of them a repeat."""
    first = calls(range(3))
    stage.put(first, partition=0)
    await run(stage, 3)
    stage.put(calls(range(3, 11)), partition=0)
    stage.put(first[:1], partition=0)
    cut_head(stage, 7)
    async with stage.running("meter", stage.parts()) as role:
        role.halt_s = 3.0
        await soon(lambda: bool(stage.sensors.halted), limit_s=30)
        assert stage.sensors.halted == [(stage.topics.raw, 0, "offset_out_of_range")]
        code, (one, second) = await init(stage, "--from", "earliest")
        assert (code, one["state"], one["stood"], one["next"], one["skipped"]) == (0, "offset_out_of_range", 3, 7, 4)
        assert second["state"] == "sound"
        assert billed(stage)[0] == 3
        code, (one, _) = await init(stage, "--from", "earliest", "--yes", "--comment", "retention")
        assert (code, one["skipped"]) == (0, 4)
        await soon(lambda: billed(stage)[0] == 7, limit_s=30)
        await soon(lambda: bool(stage.sensors.resumed), limit_s=30)
    assert billed(stage) == (7, Decimal(350))
    assert stage.sensors.calls["duplicate"] == 1
    (line,) = stage.values(stage.topics.audit)
    assert (line["action"], line["count"], line["reason"]) == ("ledger.init", 4, "retention")
    assert await reconciled(stage) == ""


async def test_a_gap_in_the_log_is_skipped_and_reported_and_its_calls_are_billed_once_when_they_are_sent_again(
    stage: Stage,
) -> None:
    """3 were billed, 4 are lost after them, 5 are left, one of them a repeat; then all 12 are sent again."""
    first, lost, left = calls(range(3)), calls(range(3, 7)), calls(range(7, 11))
    stage.put(first, partition=0)
    await run(stage, 3)
    lose(stage, lost)
    stage.put([*left, first[0]], partition=0)
    async with stage.running("meter", stage.parts()) as role:
        role.halt_s = 3.0
        await soon(lambda: bool(stage.sensors.halted), limit_s=30)
        assert stage.sensors.halted[0] == (stage.topics.raw, 0, "offset_gap")
        assert billed(stage)[0] == 3, "nothing behind the hole is counted by itself"
        code, (one, second) = await init(stage, "--from", "earliest")
        assert (code, one["state"], one["stood"], one["next"], one["skipped"]) == (0, "offset_gap", 3, 8, 5)
        assert second["state"] == "sound"
        assert billed(stage)[0] == 3
        code, (one, _) = await init(stage, "--from", "earliest", "--yes", "--comment", "kafka-2 lost a disk")
        assert (code, one["skipped"]) == (0, 5)
        await soon(lambda: billed(stage)[0] == 7, limit_s=30)
        await soon(lambda: bool(stage.sensors.resumed), limit_s=30)
        stage.put([*first, *lost, *left, *lost], partition=0)
        await soon(lambda: billed(stage)[0] == 11, limit_s=30)
        await soon(lambda: stage.sensors.calls.get("duplicate") == 12, limit_s=30)
    assert billed(stage) == (11, Decimal(550))
    (line,) = stage.values(stage.topics.audit)
    assert (line["action"], line["count"], line["reason"]) == ("ledger.init", 5, "kafka-2 lost a disk")
    assert line["target"]["reason"] == "offset_gap"
    assert await reconciled(stage) == ""
    code, result = await init(stage, "--from", "earliest")
    assert {one["state"] for one in result} == {"sound"}


async def test_a_position_beyond_the_log_is_reached_by_filler_records_so_that_no_offset_is_used_twice(
    stage: Stage,
) -> None:
    """A part is named by its first offset: Lago would take another part of that name for a repeat."""
    stage.put(calls(range(3)), partition=0)
    await run(stage, 3)
    position = {m.key(): m.value() for m in stage.read(stage.topics.changelog) if m.partition() == 0}[POSITION_KEY]
    ahead = msgspec.msgpack.decode(position, type=Position)
    ahead.next = 8  # five records were lost with the log's end
    stage.producer.produce(stage.topics.changelog, msgspec.msgpack.encode(ahead), POSITION_KEY, partition=0)
    stage.producer.flush(10 * PATIENCE)
    stage.put(calls([77]), partition=0)  # came after the loss, below the position
    code, (first, _) = await init(stage, "--from", "earliest", "--yes")
    assert (code, first["state"]) == (1, "offsets_would_repeat")
    code, (first, _) = await init(stage, "--from", "latest", "--yes")
    assert (code, first["state"], first["next"], first["skipped"]) == (0, "offset_out_of_range", 8, 0)
    stage.put(calls([78]), partition=0)
    await run(stage, 4)
    replayed = await meterbridge(stage, "replay", "--from", "10m", "--to", "0s", "--json")
    assert replayed.code == 0, replayed.err
    await run(stage, 5)
    ids = [event["transaction_id"] for event in stage.values(stage.topics.events)]
    assert len(ids) == len(set(ids))
    assert billed(stage) == (5, Decimal(250))


async def test_a_lost_ledger_continues_at_its_position_and_bills_no_repeat(stage: Stage) -> None:
    """Its identities are gone: calls that ended before its last call was received wait for a check; seals and sums
    continue.
    """
    counted = calls(range(3), ago_s=1200)
    stage.put(counted, partition=0)
    await run(stage, 3)
    name = stage.topics.changelog
    client = admin(stage)
    for future in client.delete_topics([name], operation_timeout=10 * PATIENCE).values():
        future.result(30 * PATIENCE)
    await soon(lambda: name not in client.list_topics(timeout=5 * PATIENCE).topics)
    for future in client.create_topics([NewTopic(name, 2, 1, config={"cleanup.policy": "compact"})]).values():
        future.result(30 * PATIENCE)
    stage.put(counted[1:2], partition=0)
    stage.put(calls([10, 11]), partition=0)
    code, (first, second) = await init(stage, "--from", "earliest", "--yes")
    assert code == 0, first
    assert (first["state"], first["stood"], first["next"], first["skipped"]) == ("ledger_missing", 3, 0, 0)
    assert first["checked_before"] and second["state"] == "sound"
    await run(stage, 5)
    assert billed(stage) == (5, Decimal(250))
    assert stage.sensors.calls["rejected:beyond_horizon"] == 4
    assert await reconciled(stage) == ""


async def test_a_ledger_with_an_unreadable_position_halts_alone_and_starts_again(stage: Stage) -> None:
    """In an earlier version one byte 0xFF in one record ended the meter, and with it every partition, at each start."""
    stage.put(calls(range(3), ago_s=1200), partition=0)
    await run(stage, 3)
    garbage = [(POSITION_KEY, b"\xff"), (b"w12345678", b"\xff"), (b"j" * 17, b"\xff"), (b"w", b"x"), (b"\xff", b"\xff")]
    for key, value in garbage:
        stage.producer.produce(stage.topics.changelog, value, key, partition=0)
    for key, value in garbage[1:]:
        stage.producer.produce(stage.topics.changelog, value, key, partition=1)
    stage.producer.flush(10 * PATIENCE)
    stage.put(calls([10]), partition=0)
    stage.put(calls([20, 21]), partition=1)
    async with stage.running("meter", stage.parts()):
        await soon(lambda: billed(stage)[0] == 5)
        await soon(lambda: stage.sensors.halted == [(stage.topics.raw, 0, "unreadable_ledger")])
    code, (first, second) = await init(stage, "--from", "earliest", "--yes")
    assert (code, first["state"], second["state"]) == (0, "ledger_missing", "sound")
    await run(stage, 6)
    assert billed(stage) == (6, Decimal(300))
    assert await reconciled(stage) == ""


async def test_a_running_worker_is_fenced_and_finds_the_new_position(stage: Stage) -> None:
    """The command writes with the meter's own transactional id: the worker that has the partition cannot commit any
    more.
    """
    stage.put(calls(range(8)), partition=0)
    place = place_of(stage.deployment)
    worker = Ledger(0, place, LedgerCache(time.monotonic), lambda: time.time_ns() // 1000)
    state = await worker.open()
    cut_head(stage, 5)
    planned = await plan(place, 0, RestartPosition("earliest"))
    assert (planned.reason, planned.next) == ("offset_out_of_range", 5)
    await begin(place, 0, RestartPosition("earliest"), planned, EmittedTotals())
    stale = Changes(msgspec.structs.replace(state.position, next=1))
    with pytest.raises(Exception, match=r"(?i)fenced|epoch"):
        await worker.commit(stale)
    await worker.close()
    again = Ledger(0, place, LedgerCache(time.monotonic), lambda: time.time_ns() // 1000)
    assert (await again.open()).position.next == 5
    assert again.state is not None and again.state.position.skipped == 5
    await again.close()
