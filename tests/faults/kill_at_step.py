"""Kills a worker at one step of a post to Lago, lets another worker take over, and returns the final state."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, TopicPartition

from schemas.records import LagoEvent, Manifest
from streams.state.step_writes import MANIFEST
from tests.faults import self_killing_worker
from tests.faults.procs import Process
from tests.support.eventually import PATIENCE, soon, within
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.stage import Stage

EVENTS = 30
NO_EVENT = b"\0no event"
NAMES = [f"e-{number}" for number in range(EVENTS)]
#: From the kill to the last receipt: a session, a start and a post, on a busy machine.
LIMIT_S = 90.0


@dataclass(frozen=True)
class Step:
    """One step, and the conditions that must hold when the process is dead.

    Fields:
        stored: events that Lago holds then.
        committed: whether the transaction counts; None where both may be.
        fault: of the sandbox, where the step is reached from outside.
    """

    name: str
    stored: int
    committed: bool | None = False
    fault: tuple[str, float] | None = None


#: `slow`: the sandbox has read the request, and handles it when its sender is long dead.
STEPS = {
    step.name: step
    for step in (
        Step(self_killing_worker.BEFORE_SEND, 0),
        Step("sent", 0, fault=("slow", 4)),
        Step("stored", EVENTS, fault=("timeout_after_accept", 4)),
        Step(self_killing_worker.AFTER_ANSWER, EVENTS),
        Step(self_killing_worker.BEFORE_COMMIT, EVENTS),
        Step(self_killing_worker.RECORDS_WRITTEN, EVENTS),
        Step(self_killing_worker.OFFSET_SENT, EVENTS),
        Step(self_killing_worker.COMMITTING, EVENTS, committed=None),
        Step(self_killing_worker.COMMITTED, EVENTS, committed=True),
    )
}


@dataclass(frozen=True)
class Scenario:
    """A role, Lago's event store, and where the role dies."""

    role: str
    store: str
    step: Step

    def __str__(self) -> str:
        return f"{self.role}-{self.store}-{self.step.name}"


@dataclass
class Found:
    """The state when the process was dead, and the final state.

    Fields:
        copies: of each event that Lago holds, by transaction id.
        duplicates: repeats that were offered to Lago.
        receipts: how many of each (transaction id, status).
        committed: the group's offset.
    """

    exit_code: int = 0
    stored_then: int = -1
    committed_then: int = -1
    copies: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    receipts: Counter[tuple[str, str]] = field(default_factory=Counter)
    dead: list[bytes] = field(default_factory=list)
    committed: int = 0


async def play(scenario: Scenario, bootstrap: str, prefix: str, folder: Path) -> Found:
    """Run one scenario, from an empty topic to the last receipt."""
    stage = await asyncio.to_thread(
        Stage, bootstrap, f"{prefix}{scenario.role}.{scenario.store}.{scenario.step.name}.", 1
    )
    found = Found()
    async with lago_sandbox(clock=time.time, store=scenario.store) as lago:
        if scenario.step.fault:
            kind, seconds = scenario.step.fault
            await lago.fault(kind=kind, seconds=seconds, count=1)
        await asyncio.to_thread(_put, stage, scenario.role)
        await _die(found, scenario, stage, lago, folder)
        async with worker(["connectors", "worker", "--only", scenario.role], stage, lago, folder, name="heir") as heir:
            heir.start()
            await soon(lambda: _committed(stage, scenario.role) == EVENTS + 1, LIMIT_S)
            await _all_handled(scenario, lago)
        await _look(found, scenario, stage, lago)
    return found


async def _die(found: Found, scenario: Scenario, stage: Stage, lago: Lago, folder: Path) -> None:
    step = scenario.step
    name = "-" if step.fault else step.name
    async with worker(["tests.faults.self_killing_worker", scenario.role, name], stage, lago, folder) as mortal_worker:
        mortal_worker.start()
        deadline = time.monotonic() + LIMIT_S * PATIENCE
        while mortal_worker.alive:
            assert time.monotonic() < deadline, mortal_worker.tail()
            if step.fault and await _fired(lago) and await _stored(lago) == step.stored:
                await mortal_worker.kill()
            await asyncio.sleep(0.02)
        await mortal_worker.kill()
        found.exit_code = mortal_worker.deaths[0].code
        found.stored_then = await _stored(lago)
    found.committed_then = await asyncio.to_thread(_committed, stage, scenario.role)


async def _look(found: Found, scenario: Scenario, stage: Stage, lago: Lago) -> None:
    result = (await lago.http.get("/__events")).text.splitlines()
    found.copies = Counter(msgspec.json.decode(line)["transaction_id"] for line in result)
    found.duplicates = (await lago.stats())["duplicates"]
    receipts = await asyncio.to_thread(stage.values, stage.topics.receipts)
    found.receipts = Counter((receipt["transaction_id"], receipt["status"]) for receipt in receipts)
    found.dead = [message.value() for message in await asyncio.to_thread(stage.read, stage.topics.dlq)]
    found.committed = await asyncio.to_thread(_committed, stage, scenario.role)


def _put(stage: Stage, role: str) -> None:
    """Put the events, and among them a record that is not an event: its dead letter is in the same transaction."""
    at = f"{int(time.time())}.000"
    events = [LagoEvent(name, "sub", "ai_usage", at, "1.5", {"unit": "1", "requests": "1"}) for name in NAMES]
    values = [msgspec.json.encode(event) for event in events]
    values.insert(EVENTS // 2, NO_EVENT)
    headers: list[tuple[str, str | bytes | None]] = [(MANIFEST, msgspec.json.encode(Manifest(0, 0, 0, 1)))]
    if role == "retry":
        headers += [("attempt", b"1"), ("not_before", b"0"), ("maybe_sent", b"0")]
    topic = stage.topics.events if role == "sink" else stage.topics.retry
    for value in values:
        stage.producer.produce(topic, value, "sub", partition=0, headers=headers)
    assert stage.producer.flush(10 * PATIENCE) == 0


def _committed(stage: Stage, role: str) -> int:
    """Return the group's offset, 0 for none; one in an open transaction does not count (and is not waited for)."""
    settings = stage.settings
    options = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "group.id": f"{settings.topic_prefix}{settings.deployment_name}-{role}",
        "isolation.level": "read_uncommitted",
    }
    topic = stage.topics.events if role == "sink" else stage.topics.retry
    consumer = Consumer(options)
    try:
        (at,) = consumer.committed([TopicPartition(topic, 0)], timeout=10 * PATIENCE)
    finally:
        consumer.close()
    return max(0, int(at.offset))


@asynccontextmanager
async def worker(
    command: list[str], stage: Stage, lago: Lago, folder: Path, *, name: str = "worker", **environ: str
) -> AsyncIterator[Process]:
    """Yield a worker process with the settings that ship, but for `environ`; killed at the end. To be started."""
    settings = {
        "PATH": str(Path(sys.executable).parent),
        "KAFKA_BOOTSTRAP_SERVERS": stage.settings.kafka_bootstrap_servers,
        "KAFKA_PARTITIONS": str(stage.settings.kafka_partitions),
        "TOPIC_PREFIX": stage.settings.topic_prefix,
        "LAGO_API_URL": lago.url,
        "LAGO_API_KEY": KEY,
        "METRICS_PORT": "0",
    }
    process = Process(name, [sys.executable, "-m", *command], settings | environ, folder, time.monotonic)
    try:
        yield process
    finally:
        await process.kill()


async def _fired(lago: Lago) -> int:
    rules: list[dict[str, Any]] = (await lago.http.get("/__faults")).json()["rules"]
    return int(rules[0]["fired"])


async def _stored(lago: Lago) -> int:
    return int((await lago.stats())["totals"]["events"])


async def _all_handled(scenario: Scenario, lago: Lago) -> None:
    """Return whether all requests are handled. A dead process's request may still be on its way to Lago; its repeat is
    counted when it has arrived.
    """
    if scenario.step.fault and scenario.store == "postgres":
        async with within(LIMIT_S):
            while (await lago.stats())["duplicates"] < EVENTS:
                await asyncio.sleep(0.05)
