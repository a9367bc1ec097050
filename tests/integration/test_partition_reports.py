"""A halted partition is announced by an outgoing webhook, once, and so is its recovery."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from confluent_kafka import Producer

from connectors.operations import partition_reports
from connectors.operations.outgoing_webhooks.announcements import CALM_S
from connectors.operations.partition_reports import PartitionReports
from connectors.postgres.pool import Database
from schemas.ledger import POSITION_KEY
from schemas.records import DeliveryAttempt
from tests.faults.procs import Process
from tests.support.calls import raw, slp
from tests.support.command import environment_of, meterbridge
from tests.support.database import rows, until
from tests.support.eventually import PATIENCE, soon
from tests.support.history import TOPICS
from tests.support.projection import Writer
from tests.support.stage import Stage
from tests.support.webhook_receiver import SECRET, Receiver, task_of, webhook_receiver

PLACE = "litellm.usage.raw/0"


@dataclass
class Opened:
    """A partition task; `expected` is None until it is open."""

    expected: int | None = 0


@dataclass
class Worker:
    """What the task sees of a process, and what it has written."""

    tasks: dict[Any, Opened] = field(default_factory=lambda: {0: Opened()})
    halts: dict[tuple[str, int], str] = field(default_factory=dict)
    written: list[DeliveryAttempt] = field(default_factory=list)
    fails: bool = False
    at_us: int = 1_795_176_000_000_000

    async def write(self, records: Iterable[bytes]) -> None:
        if self.fails:
            raise KafkaConnectionError
        self.written += [msgspec.json.decode(record, type=DeliveryAttempt) for record in records]

    def reports(self) -> PartitionReports:
        topic = "litellm.usage.raw"
        return PartitionReports("meter", self.tasks, topic, lambda: self.halts, self.write, now_us=lambda: self.at_us)

    def reported(self) -> list[tuple[str, str, str]]:
        return [(one.event_type, one.source, one.error) for one in self.written]


async def test_each_change_is_reported_once_and_a_report_that_could_not_be_written_again() -> None:
    worker = Worker()
    reports = worker.reports()
    for _ in range(2):
        await reports.once()
    worker.halts["litellm.usage.raw", 0] = "ledger_missing"
    worker.fails = True
    for _ in range(2):
        with pytest.raises(KafkaConnectionError):
            await reports.once()
    worker.fails = False
    worker.tasks[0].expected = None  # it is being opened again
    for _ in range(2):
        await reports.once()
    worker.halts.clear()
    await reports.once()
    worker.tasks[0].expected = 7
    await reports.once()
    halted = ("partition.halted", f"meter/{PLACE}", "ledger_missing")
    running = ("partition.running", f"meter/{PLACE}", "")
    assert worker.reported() == [running, halted, running]


class Refusing:
    """A producer whose records Kafka refuses, and which does not end by itself."""

    closed = 0

    def __init__(self, **_: object) -> None:
        self.client = SimpleNamespace(close=self._close)
        self._txn_manager = SimpleNamespace(wait_for_transaction_end=lambda: None)
        self._message_accumulator = SimpleNamespace(_pending_batches=[], _batches={})

    async def start(self) -> None: ...

    async def send(self, topic: str, _value: bytes, key: bytes) -> asyncio.Future[None]:
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(TopicAuthorizationFailedError(topic))
        return refused

    async def flush(self) -> None:
        """Like aiokafka's: returns once each record was accepted or refused."""

    async def stop(self) -> None:
        await asyncio.Event().wait()

    async def _close(self) -> None:
        type(self).closed += 1


async def test_a_report_that_kafka_refuses_does_not_count_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_reports, "AIOKafkaProducer", Refusing)
    with pytest.raises(TopicAuthorizationFailedError):
        await partition_reports.writer_to({}, TOPICS.deliveries)([b"{}"])
    assert Refusing.closed == 1, (
        "a report that cannot be written must leave no connection behind: it is tried again and again"
    )


async def test_a_partition_of_another_process_is_reported_by_that_process() -> None:
    worker = Worker(tasks={"billing.lago.events-3": Opened(), "litellm.usage.raw-0": Opened()})
    worker.halts["billing.lago.events", 3] = "topic_recreated"
    reports = worker.reports()
    await reports.once()
    task = worker.tasks.pop("billing.lago.events-3")
    await reports.once()  # it stays halted, as far as this process knows
    worker.halts.clear()
    await reports.once()
    worker.tasks["billing.lago.events-3"] = task
    await reports.once()
    assert [one for one in worker.reported() if "events" in one[1]] == [
        ("partition.halted", "meter/billing.lago.events/3", "topic_recreated"),
        ("partition.running", "meter/billing.lago.events/3", ""),
    ]


async def test_a_partition_that_flaps_is_announced_once_in_ten_minutes(database: str) -> None:
    halted = DeliveryAttempt(1_795_176_000_000_000, "state", "partition.halted", 0, 0, "ledger_missing")
    halted = msgspec.structs.replace(halted, source=f"meter/eu.{PLACE}")
    running = msgspec.structs.replace(halted, event_type="partition.running", error="")
    post = DeliveryAttempt(1, "out", "events.batch", 200, 1, source="billing.lago.events-0")

    async def look() -> None:
        with Database(database, size=1) as pool:
            await task_of(pool, receiver.url).once()

    async with Writer(database) as writer, webhook_receiver() as receiver:
        for record in (running, post, halted, halted, running, halted, running, halted):
            await writer.put(TOPICS.deliveries, record)
            await look()
        assert receiver.types() == ["partition.halted", "partition.resumed"]
        assert (
            receiver.messages[0][1]["data"]
            == receiver.messages[1][1]["data"]
            == {
                "role": "meter",
                "topic": "eu.litellm.usage.raw",
                "partition": 0,
                "reason": "ledger_missing",
                "since": "2026-11-20T12:00:00Z",
            }
        )
        earlier = f"to_char(now() - interval '{CALM_S + 1} s', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        await rows(database, f"UPDATE announced_states SET state = 'running ' || {earlier} || ' x'")
        await look()
        await look()
        assert receiver.types() == ["partition.halted", "partition.resumed", "partition.halted"]


@asynccontextmanager
async def worker(stage: Stage, folder: Path, role: str, **environ: str) -> AsyncIterator[Process]:
    """A real one."""
    variables = environment_of(stage, METRICS_PORT="0", **environ)
    command = [sys.executable, "-m", "connectors", "worker", "--only", role]
    process = Process(role, command, variables, folder, lambda: 0.0, lambda log: '"event": "worker_started"' in log)
    process.start()
    try:
        await process.up()
        yield process
    finally:
        await process.terminate()


async def test_a_worker_with_a_lost_ledger_is_announced_and_so_is_its_recovery(
    stage: Stage, database: str, tmp_path: Path
) -> None:
    stage.map("acme", "org", "sub")
    async with webhook_receiver() as receiver:
        hooks = {
            "DATABASE_URL": database,
            "OUTGOING_WEBHOOK_URLS": receiver.url,
            "OUTGOING_WEBHOOK_SECRETS": SECRET,
            "OUTGOING_WEBHOOK_ALLOW_HTTP": "1",
            "OUTGOING_WEBHOOK_EVENTS": "partition.halted,partition.resumed",
        }
        async with worker(stage, tmp_path, "project", **hooks):
            async with worker(stage, tmp_path, "meter"):
                stage.put([raw(0, slp(1, at_us=now_us(), cost="0.5"), received_us=now_us())], partition=0)
                await until(database, "SELECT count(*) FROM llm_usage_log", lambda found: found == 1, 90)
            lose_position(stage)
            async with worker(stage, tmp_path, "meter"):
                await announced(receiver, ["partition.halted"])
            assert receiver.messages[0][1]["data"]["reason"] == "ledger_missing"
            assert receiver.messages[0][1]["data"]["topic"] == stage.topics.raw
            done = await meterbridge(stage, "ledger", "rebuild", "--comment", "a test", "--yes", "--json")
            assert done.code == 0, done.out + done.err
            async with worker(stage, tmp_path, "meter"):
                await announced(receiver, ["partition.halted", "partition.resumed"])
    assert [message["data"]["role"] for _, message in receiver.messages] == ["meter", "meter"]
    states = await rows(database, "SELECT DISTINCT direction FROM webhook_delivery_logs")
    assert states == [("state",)]


async def announced(receiver: Receiver, types: list[str]) -> None:
    await soon(lambda: len(receiver.messages) >= len(types), limit_s=90)
    assert receiver.types() == types


def lose_position(stage: Stage) -> None:
    producer = Producer({"bootstrap.servers": stage.settings.kafka_bootstrap_servers})
    producer.produce(stage.topics.changelog, None, POSITION_KEY, partition=0)
    assert producer.flush(30 * PATIENCE) == 0


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000
