"""This version continues where an earlier one stopped: with its topics, ledgers and spool on a real broker, billed to
the cent.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from connectors.ingest.spool import Spool
from connectors.ingest.spooling_producer import SpooledSender
from connectors.kafka.admin import topic_ids
from connectors.kafka.client_config import producer_config
from connectors.kafka.producer import KafkaProducer
from schemas.customers import CustomerRecord, MappingVersion
from schemas.policy import MeterPolicy
from schemas.records import LagoEvent
from schemas.topics import CUSTOMERS, DLQ, RAW
from streams.runtime.unreadable import COUNTS
from tests.faults.evidence import Evidence
from tests.faults.oracle import Found, receipts_wrong, seals_wrong
from tests.faults.recording import CODE
from tests.support.command import meterbridge
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.posting import quick_delivery
from tests.support.recorded_version.recording import RECORDINGS, Recording
from tests.support.recorded_version.topics import commit_offsets, restored
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

#: Between the end of the recording and its restoration, by the clock that is handed to all.
LATER_S = 600.0
#: Copies of recorded calls that are sent once more.
COPIES = 20
_DONE_S = 60.0


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda one: one.folder.name)
async def test_the_work_that_an_earlier_version_left_is_billed_once_to_the_cent(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, recording: Recording, figures: Callable[..., None]
) -> None:
    """Open windows close, held usage is released by a mapping, waiting events are posted, the spool is sent, and copies
    of recorded calls bill nothing. Events that the earlier version had delivered are not posted again.
    """
    about, begun, before = recording.about, time.monotonic(), Counter(COUNTS.of_role())
    ended_s = about["recorded_at_ms"] / 1000

    def now_s() -> float:
        return ended_s + LATER_S + time.monotonic() - begun

    stage = Stage(kafka.bootstrap, topic_prefix, about["partitions"])
    dead = restored_on(stage, recording)
    async with lago_sandbox(clock=now_s) as lago, http_client(trust_env=False) as http:
        await sold(lago, about, ended_s)
        parts = stage.parts(MeterPolicy(deployment=about["deployment"]), quick_delivery(lago, http))
        parts = replace(parts, now_us=lambda: int(now_s() * 1_000_000), held_in_memory=3)
        evidence = Evidence(kafka.bootstrap, stage.topics, lago.url)
        async with stage.running("meter", parts), stage.running("sink", parts), stage.running("retry", parts):
            await drained(stage, recording.spool(tmp_path / "spool.db"), about)
            send_again(stage, recording)
            map_all(stage, about)
            await settled(evidence)
        found, stats = await evidence.gather(), await lago.stats()
    owed = {name: Decimal(cents) for name, cents in about["owed_cents"].items()}
    for billed in ({name: Decimal(cents) for name, cents in about["lago_cents"].items()}, dead):
        owed = {name: cents - billed.get(name, Decimal(0)) for name, cents in owed.items()}
    got = {name: Decimal(its["cents"]) for name, its in stats["subscriptions"].items()}
    assert {name: got.get(name, Decimal(0)) - cents for name, cents in owed.items()} == dict.fromkeys(owed, 0)
    assert stats["conflicts"] == 0
    assert [event["transaction_id"] for event in found.lago_events if event["code"] == CODE] != []
    assert (stage.sensors.halted, COUNTS.of_role() - before) == ([], Counter())
    assert (found.rejected, found.dead) == (about["by_topic"]["litellm.usage.rejected"], len(dead))
    assert seals_wrong(found.events) == []
    ids = {event.event.transaction_id for event in found.events}
    assert len([line for line in receipts_wrong(found.events, found.receipts) if line.split()[0] in ids]) == len(dead)
    await commands_read_it(stage, about)
    figures(records=about["records"], usd=f"{sum(owed.values()) / 100:f}", events=stats["totals"]["events"])


def restored_on(stage: Stage, recording: Recording) -> dict[str, Decimal]:
    """Return the recorded topics and groups, on the stage; the cents of the dead letters."""
    raw = stage.topics.raw
    ids = {recording.about["topic_id"]: topic_ids(stage.connection, [raw])[raw]}
    bootstrap, prefix = stage.settings.kafka_bootstrap_servers, stage.settings.topic_prefix
    keep_old_records(bootstrap, [prefix + name for name in recording.about["by_topic"]])
    places = restored(bootstrap, prefix, recording.records(), ids, recording.about["offsets"])
    for role, at in places.items():
        commit_offsets(bootstrap, stage.parts().group(role), at)
    dead: dict[str, Decimal] = {}
    for record in recording.records():
        if record.topic == DLQ.name:
            event = msgspec.json.decode(record.value or b"", type=LagoEvent)
            cents = Decimal(event.precise_total_amount_cents)
            dead[event.external_subscription_id] = dead.get(event.external_subscription_id, Decimal(0)) + cents
    return dead


def keep_old_records(bootstrap: str, topics: Sequence[str]) -> None:
    """Keep old records, because a recording may be older than the retention of its topics."""
    entry = ConfigEntry("retention.ms", "-1", incremental_operation=AlterConfigOpType.SET)
    asked = [ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry]) for topic in topics]
    admin = AdminClient({"bootstrap.servers": bootstrap})  # its answers end with it
    for future in admin.incremental_alter_configs(asked).values():
        future.result(30 * PATIENCE)


async def sold(lago: Lago, about: dict[str, Any], ended_s: float) -> None:
    """Create the orgs' subscriptions as they were at the recording."""
    await lago.metric(CODE, aggregation_type="count_agg", field_name=None)
    await lago.usage_plan("ai")
    since = (datetime.fromtimestamp(ended_s, UTC) - timedelta(days=2)).isoformat()
    for name in about["owed_cents"]:
        await lago.subscribe(name, name.removeprefix("sub-"), "ai", subscription_at=since)


async def drained(stage: Stage, path: Path, about: dict[str, Any]) -> None:
    """Drain the spool file, as the ingress of this version does at its start; the file names its topics."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(path)) as file:
        names = (stage.settings.topic_prefix + RAW.name, about["prefix"] + RAW.name)
        file.execute("UPDATE spool SET topic = ? WHERE topic = ?", names)
        file.commit()
    spool = await Spool.at(path, 1 << 30, [stage.topics.raw, stage.topics.rejected])
    assert spool.records == about["spooled"]
    producer = KafkaProducer(producer_config(stage.settings.kafka_bootstrap_servers, answer_within_s=30))
    sender = SpooledSender(producer, spool, stage.topics.rejected, lambda: time.time_ns() // 1000)
    draining = asyncio.ensure_future(sender.drain())
    try:
        await soon(lambda: spool.records == 0, 30)
    finally:
        draining.cancel()
        with suppress(asyncio.CancelledError):
            await draining
        await spool.close()
        await producer.close()


def send_again(stage: Stage, recording: Recording) -> None:
    """Send the first calls of the recording again, byte for byte."""
    calls = [record for record in recording.records() if record.topic == RAW.name and not record.headers][:COPIES]
    for call in calls:
        stage.producer.produce(stage.topics.raw, call.value, call.key, partition=call.partition, timestamp=call.at_ms)
    assert stage.producer.flush(10 * PATIENCE) == 0


def map_all(stage: Stage, about: dict[str, Any]) -> None:
    """Held customers get a payer from now on."""
    org = about["org"]
    for customer in about["unmapped"]:
        version = MappingVersion(0, org, "tenant-1", external_subscription_id=f"sub-{org}")
        value = msgspec.json.encode(CustomerRecord(customer, (version,), 0, 0))
        stage.producer.produce(stage.settings.topic_prefix + CUSTOMERS.name, value, customer)
    assert stage.producer.flush(10 * PATIENCE) == 0


async def settled(evidence: Evidence) -> None:
    """Return whether every call is counted, no window is left, and every event except dead letters is delivered."""
    deadline = time.monotonic() + _DONE_S * PATIENCE
    while not _settled(found := await evidence.gather()) and time.monotonic() < deadline:
        await asyncio.sleep(0.3)
    last = {receipt.transaction_id: receipt.status for receipt in found.receipts}
    left = [(one.event.transaction_id, last.get(one.event.transaction_id)) for one in found.events]
    assert _settled(found), (
        [(number, its.position.next, len(its.windows)) for number, its in found.ledger.items()],
        [(name, status) for name, status in left if status != "completed"],
    )


def _settled(found: Found) -> bool:
    last = {receipt.transaction_id: receipt.status for receipt in found.receipts}
    folded = all(found.ledger[number].position.next == end for number, end in found.raw_ends.items())
    left = sum(last.get(sent.event.transaction_id) != "completed" for sent in found.events)
    return (
        bool(found.ledger) and folded and not any(its.windows for its in found.ledger.values()) and left == found.dead
    )


async def commands_read_it(stage: Stage, about: dict[str, Any]) -> None:
    """Check that the operator's commands of this version read the records of the earlier version."""
    verified = await meterbridge(stage, "audit", "verify", "--json", LOG_LEVEL="info")
    assert verified.code == 0, verified.err
    listed = await meterbridge(stage, "dlq", "list", "--json")
    assert listed.code == 0, listed.err
    count = about["by_topic"]["billing.lago.dlq"] + about["by_topic"]["litellm.usage.rejected"]
    assert len(listed.json["dead_letters"]) == count
