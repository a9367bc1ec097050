"""Late calls are released automatically: each is billed once, whichever process is killed, without a command."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.operations.dead_letters import CALLS, Filters, unresolved
from connectors.operations.late_calls import EVERY_S, LateCalls
from connectors.operations.requeue import checked
from connectors.operations.sender import CommandProducer, Outgoing
from connectors.postgres.pool import Database
from schemas.errors import Unavailable
from schemas.moments import HOUR_US
from tests.faults.procs import Process
from tests.support.calls import Raw, raw, slp
from tests.support.command import environment_of, meterbridge
from tests.support.database import projector_parts, rows, until
from tests.support.eventually import soon
from tests.support.stage import Stage

OPEN = "SELECT count(*) FROM rejected_calls WHERE resolution IS NULL"
BILLED = "SELECT count(*), COALESCE(sum(cost_usd), 0) FROM llm_usage_log WHERE part <> ''"


@dataclass
class LagoHistory:
    """The metrics that the task writes."""

    outcomes: dict[str, int] = field(default_factory=dict)

    def late_calls(self, outcome: str, calls: int) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + calls


class World:
    """A meter, a projector, and the task that releases late calls."""

    def __init__(self, stage: Stage, database: str, partition_tasks: Any) -> None:
        self.stage, self.url, self.partition_tasks = stage, database, partition_tasks
        self.pool = Database(database, size=2)
        self.reported = LagoHistory()

    def task(self, make_sender: Any = None) -> LateCalls:
        """Return the task as a new process creates it."""
        sender = make_sender or (lambda: CommandProducer(self.stage.connection))
        return LateCalls(self.stage.deployment, self.pool, self.partition_tasks, self.reported, sender)

    async def refused(self, count: int) -> None:
        """Return once the rows show this number of calls beyond the dedupe retention."""
        await until(self.url, "SELECT count(*) FROM rejected_calls", lambda found: found == count)

    async def billed(self, count: int, usd: int) -> None:
        await until(self.url, "SELECT count(*) FROM llm_usage_log WHERE part <> ''", lambda found: found >= count)
        assert await rows(self.url, BILLED) == [(count, Decimal(usd))]


@pytest.fixture
async def world(stage: Stage, database: str) -> AsyncIterator[World]:
    stage.map("acme", "org", "sub")
    async with (
        projector_parts(stage, database) as project,
        stage.running("meter", stage.parts()),
        stage.running("project", project) as role,
    ):
        world = World(stage, database, role.partition_tasks)
        yield world
        world.pool.terminate()


def call(number: int, hours: float = 0, *, then: bool = False) -> Raw:
    """A call that ended this number of hours ago; it arrives now, or it arrived then."""
    now = time.time_ns() // 1000
    at = now - int(hours * HOUR_US)
    return raw(0, slp(number, at_us=at, cost="2"), received_us=at if then else now)


async def aged(world: World, old: Iterable[Raw]) -> int:
    """`old` is billed, and then days pass on the partition's clock; returns how many calls are in the log."""
    calls = list(old)
    world.stage.put(calls)
    await world.billed(len(calls), 2 * len(calls))
    world.stage.put([call(1000)])
    await world.billed(len(calls) + 1, 2 * len(calls) + 2)
    return len(calls) + 1


async def test_a_spool_that_was_unreachable_for_three_days_is_billed_automatically(world: World) -> None:
    count = await aged(world, [])
    spooled = [call(n, 72 - n) for n in range(30)]
    world.stage.put(spooled)
    await world.refused(30)
    watching = asyncio.ensure_future(world.task().watch())
    try:
        await world.billed(count + 30, 62)
        await until(world.url, OPEN, lambda left: left == 0)
    finally:
        watching.cancel()
    assert world.reported.outcomes == {"requeued": 30}
    line = world.stage.values(world.stage.topics.audit)[-1]
    assert (line["action"], line["count"], Decimal(line["cost_usd"])) == ("late.release", 30, 60)


async def test_a_topic_replayed_beyond_the_dedupe_retention_bills_only_missing_calls(world: World) -> None:
    """This is what a backfill looks like: three calls were billed then, two never arrived."""
    old = [call(n, 72, then=True) for n in range(3)]
    count = await aged(world, old)
    lost = [call(n, 72, then=True) for n in (3, 4)]
    world.stage.put([*old, *lost, *old])
    await world.refused(8)
    done = await world.task().once()
    assert (done.requeued, done.known) == (2, 6)
    await world.billed(count + 2, 12)
    await until(world.url, OPEN, lambda left: left == 0)
    assert (await world.task().once()).requeued == 0


class KilledProcess(CommandProducer):
    """A process that is killed before or after its records are durable."""

    def __init__(self, stage: Stage, *, durable: bool) -> None:
        super().__init__(stage.connection)
        self._durable = durable
        self._topic = stage.topics.raw

    def send(self, records: Any, sent: Any = lambda _count: None) -> int:
        kept: list[Outgoing] = list(records)
        if any(record.topic == self._topic for record in kept):
            if self._durable:
                super().send(kept)
            raise Unavailable("killed", "")
        return super().send(kept)


@pytest.mark.parametrize("durable", [True, False])
async def test_after_a_kill_between_sending_and_marking_the_call_is_billed_once(world: World, durable: bool) -> None:
    count = await aged(world, [])
    world.stage.put([call(n, 72) for n in range(5)])
    await world.refused(5)
    with pytest.raises(Unavailable, match="killed"):
        await world.task(lambda: KilledProcess(world.stage, durable=durable)).once()
    assert (await rows(world.url, OPEN))[0][0] == 5
    done = await world.task().once()
    assert (done.requeued, done.known) == ((0, 5) if durable else (5, 0))
    await world.billed(count + 5, 12)


async def test_two_processes_with_one_partition_for_a_moment_bill_once(world: World) -> None:
    """The one that lost it has not noticed yet; meanwhile an operator runs the command."""
    count = await aged(world, [])
    world.stage.put([call(n, 72) for n in range(20)])
    await world.refused(20)
    words = ("dlq", "requeue", "--reason", "beyond_horizon", "--json")
    await asyncio.gather(
        world.task().once(),
        world.task().once(),
        meterbridge(world.stage, *words, DATABASE_URL=world.url),
        return_exceptions=True,
    )
    await world.task().once()
    await world.billed(count + 20, 42)


async def test_a_call_that_the_log_cannot_decide_waits_and_is_listed(world: World) -> None:
    await aged(world, [])
    await rows(world.url, "UPDATE log_completeness SET since = now() - interval '1 hour'")
    world.stage.put([call(1, 72)])
    await world.refused(1)
    task = world.task()
    for _ in range(2):
        await task.once()
    assert world.reported.outcomes == {"waiting": 1}
    assert [one.reason for one in unresolved(world.stage.deployment, CALLS, Filters())] == ["beyond_horizon"]


async def test_a_clock_that_is_ahead_causes_no_endless_releases(world: World) -> None:
    """The partition's clock is days ahead: a released call is rejected again at once."""
    ahead = call(1000)
    ahead.timestamp += 50 * 60_000  # brokers take a record that is less than an hour ahead
    world.stage.put([ahead])
    await world.billed(1, 2)
    stale = time.time_ns() // 1000 - 60_000_000
    old = slp(1, at_us=stale - 72 * HOUR_US, cost="2")
    world.stage.put([raw(0, old, received_us=stale)])
    await world.refused(1)
    task = world.task()
    assert (await task.once()).requeued == 1
    await world.billed(2, 4)
    assert (await task.once()).requeued == 0


async def test_a_call_that_was_rejected_again_at_once_is_released_again_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was checked for a ledger that was recreated afterwards: it has to be checked once more."""
    count = await aged(world, [])
    monkeypatch.setattr("connectors.operations.late_calls._CAME_BACK_US", 40 * HOUR_US)
    of_30_hours_ago = time.time_ns() // 1000 - 30 * HOUR_US
    came_back = call(1, 72)
    world.stage.put([replace(came_back, value=checked(came_back.value, of_30_hours_ago)), call(2, 72)])
    await world.refused(2)
    task = world.task()
    done = await task.once()
    assert (done.requeued, done.reasons) == (1, {"came_back": 1})
    assert (await task.once()).reasons == {}
    task.now_us = lambda: time.time_ns() // 1000 + 41 * HOUR_US
    assert (await task.once()).requeued == 1
    await world.billed(count + 2, 6)
    assert (await task.once()).requeued == 0


async def test_a_dismissed_call_stays_dismissed_when_it_is_replayed(world: World) -> None:
    count = await aged(world, [])
    old = call(1, 72)
    world.stage.put([old])
    await world.refused(1)
    purged = await meterbridge(
        world.stage, "dlq", "dismiss", "--until", "0s", "--comment", "a test", "--json", DATABASE_URL=world.url
    )
    assert purged.json["dismissed"] == 1
    await until(world.url, OPEN, lambda left: left == 0)
    world.stage.put([old, call(2, 72)])
    await world.refused(3)
    done = await world.task().once()
    assert (done.requeued, done.known) == (1, 0)
    await world.billed(count + 1, 4)


async def test_other_reasons_are_left_to_operators(world: World) -> None:
    await aged(world, [])
    world.stage.put([raw(0, slp(1, cost="-1"), received_us=time.time_ns() // 1000)])
    await world.refused(1)
    assert (await world.task().once()).known == 0
    assert (await rows(world.url, OPEN))[0][0] == 1


async def test_the_projectors_process_does_it_and_is_killed_again_and_again(
    stage: Stage, database: str, tmp_path: Path
) -> None:
    """SIGKILL at any moment: calls sent and not marked are found as counted by the next process, which takes over at
    once.
    """
    chance = random.Random(3)
    stage.map("acme", "org", "sub")
    async with (
        stage.running("meter", stage.parts()),
        worker(stage, database, tmp_path) as process,
    ):
        stage.put([call(1000)])
        await soon(lambda: stage.sensors.calls.get("billable") == 1, limit_s=30)
        stage.put([call(n, 72) for n in range(1500)])
        await soon(lambda: stage.sensors.calls.get("rejected:beyond_horizon") == 1500, limit_s=30)
        for _ in range(4):
            process.start()
            await process.up()
            await asyncio.sleep(chance.uniform(0, EVERY_S + 2))
            await process.kill()
        process.start()
        await until(database, "SELECT count(*) FROM llm_usage_log WHERE part <> ''", lambda n: n == 1501, 60)
        await until(database, OPEN, lambda left: left == 0, 60)
        await soon(lambda: billed_cents(stage) == 1501 * 200, limit_s=30)
    assert [death.cause for death in process.deaths] == ["killed"] * 5


def billed_cents(stage: Stage) -> Decimal:
    return sum((Decimal(one["precise_total_amount_cents"]) for one in stage.values(stage.topics.events)), Decimal(0))


@asynccontextmanager
async def worker(stage: Stage, database: str, folder: Path) -> AsyncIterator[Process]:
    """`meterbridge worker --only project`, to be started; up once it has its partitions; killed at the end."""
    # Without the name Kafka gives its partitions to the next one when the session of the dead one ends.
    variables = environment_of(stage, DATABASE_URL=database, METRICS_PORT="0", POD_NAME="worker-0")
    command = [sys.executable, "-m", "connectors", "worker", "--only", "project"]
    process = Process("project", command, variables, folder, time.monotonic, lambda said: "partitions_opened" in said)
    try:
        yield process
    finally:
        await process.kill()
