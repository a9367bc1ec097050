"""Many rebalances: five workers come and go, and no call is folded twice or left out."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from tests.faults.kill_at_step import worker
from tests.faults.procs import Process
from tests.support.calls import raw, slp
from tests.support.eventually import soon, within
from tests.support.kafka import Kafka
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

WORKERS, CUSTOMERS, PARTITIONS = 5, 12, 6
COST_OF_ONE_CALL = Decimal("0.0145")
LIMIT_S = 90.0
QUICK = {"WINDOW_SECONDS": "2", "GRACE_SECONDS": "1"}


class Sender:
    """Sends a hundred calls a second to the raw topic, until it is stopped."""

    def __init__(self, stage: Stage) -> None:
        self.sent = 0
        self._stage = stage

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self._put, 20)
            await asyncio.sleep(0.2)

    def _put(self, count: int) -> None:
        at = time.time_ns() // 1000
        calls = range(self.sent, self.sent + count)
        self._stage.put([raw(0, slp(n, at_us=at), customer=f"c-{n % CUSTOMERS}", received_us=at) for n in calls])
        self.sent += count


async def come_and_go(workers: list[Process], for_s: float, random: Random) -> int:
    """About every second a worker joins, leaves or is killed, and at least one runs; returns how often that happened."""
    moves, until = 0, time.monotonic() + for_s
    while time.monotonic() < until:
        one, there = random.choice(workers), [process for process in workers if process.wanted]
        async with one.busy:
            if not one.wanted:
                one.start()
            elif len(there) == 1:
                continue
            elif random.random() < 0.3:
                await one.kill()
            else:
                death = await one.terminate()
                assert death is None or death.code == 0, one.tail()
        moves += 1
        await asyncio.sleep(random.uniform(0.5, 1.5))
    return moves


@asynccontextmanager
async def crew(stage: Stage, lago: Lago, folder: Path) -> AsyncIterator[list[Process]]:
    """Five meters that are restarted when they end by themselves, and a sink."""
    async with AsyncExitStack() as stack:
        command = ["connectors", "worker", "--only", "meter"]
        entered = [worker(command, stage, lago, folder, name=f"meter-{n}", **QUICK) for n in range(WORKERS)]
        meters = [await stack.enter_async_context(one) for one in entered]
        sink = await stack.enter_async_context(
            worker(["connectors", "worker", "--only", "sink"], stage, lago, folder, name="sink")
        )
        watching = [asyncio.ensure_future(process.watch()) for process in (*meters, sink)]
        stack.callback(lambda: [task.cancel() for task in watching])
        sink.start()
        yield meters


async def test_five_workers_that_join_and_leave_continuously_bill_every_call_once(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, figures: Callable[..., None], *, long_faults: bool
) -> None:
    stage, storm_s = Stage(kafka.bootstrap, topic_prefix, PARTITIONS), 120.0 if long_faults else 15.0
    for number in range(CUSTOMERS):
        stage.map(f"c-{number}", "org", "sub")
    sender = Sender(stage)
    async with lago_sandbox(clock=time.time) as lago, crew(stage, lago, tmp_path) as meters:
        for process in meters:
            process.start()
        sending = asyncio.ensure_future(sender.run())
        moves = await come_and_go(meters, storm_s, Random(topic_prefix))
        sending.cancel()
        await asyncio.wait({sending})
        calm = time.monotonic()
        await soon(lambda: sum(_billed(stage).values()) >= sender.sent, LIMIT_S)
        await _all_stored(lago, sender.sent)
        drained_s = time.monotonic() - calm
        stats = await lago.stats()
    assert (stats["totals"]["calls"], Decimal(stats["totals"]["cents"])) == (
        sender.sent,
        COST_OF_ONE_CALL * sender.sent,
    )
    assert (stats["conflicts"], stage.read(stage.topics.rejected)) == (0, [])
    for numbers in _seals(stage).values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
    figures(calls=sender.sent, moves=moves, drained_s=drained_s, storm_s=storm_s)


def _billed(stage: Stage) -> Counter[str]:
    events = stage.values(stage.topics.events)
    return Counter({event["transaction_id"]: int(event["properties"]["requests"]) for event in events})


def _seals(stage: Stage) -> dict[bytes, list[int]]:
    numbers: dict[bytes, list[int]] = defaultdict(list)
    for message in stage.read(stage.topics.events):
        headers = dict(message.headers())
        numbers[headers["raw_partition"]].append(int(headers["seal_seq"]))
    return numbers


async def _all_stored(lago: Lago, calls: int) -> None:
    async with within(LIMIT_S):
        while (await lago.stats())["totals"]["calls"] < calls:
            await asyncio.sleep(0.05)
