"""Lago cannot be reached: connections are refused, silent or reset. Events wait in their topic and arrive once."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.faults.kill_at_step import worker
from tests.support.eventually import soon, within
from tests.support.kafka import Kafka
from tests.support.posting import event, put, statuses
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.stage import Stage
from tests.support.wire import Wire, wire

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

SINK = ["connectors", "worker", "--only", "sink,retry"]
EVENTS = 1500
LIMIT_S = 90.0


async def copies(lago: Lago) -> Counter[str]:
    lines = (await lago.http.get("/__events")).text.splitlines()
    return Counter(msgspec.json.decode(line)["transaction_id"] for line in lines)


async def refuse(way: Wire, for_s: float) -> None:
    await way.cut()
    await asyncio.sleep(for_s)
    await way.join()


async def fall_silent(way: Wire, for_s: float) -> None:
    """Stop all traffic: connections stay open, but no bytes pass."""
    way.passing.clear()
    await asyncio.sleep(for_s)
    way.passing.set()


async def reset_again_and_again(way: Wire, for_s: float) -> None:
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        await way.reset()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("harm", [refuse, fall_silent, reset_again_and_again])
async def test_an_event_that_lago_does_not_answer_waits_and_arrives_once(
    kafka: Kafka,
    topic_prefix: str,
    tmp_path: Path,
    figures: Callable[..., None],
    harm: Callable[[Wire, float], "asyncio.Future[None]"],
    *,
    long_faults: bool,
) -> None:
    """No event is given up for it, however long it takes.

    Where one connection is reset while another lives, an event may be taken for the cause and be retried apart.
    """
    stage, away_s = Stage(kafka.bootstrap, topic_prefix, partitions=2), 300.0 if long_faults else 8.0
    async with lago_sandbox(clock=time.time) as lago, wire(urlsplit(lago.url).port or 0) as way:
        put(stage, [event(number) for number in range(EVENTS // 2)])
        there = {
            "LAGO_API_URL": f"http://127.0.0.1:{way.port}",
            "LAGO_TIMEOUT": "2",
            "BATCH_SIZE": "10",
            "RETRY_DELAY": "5",
        }
        async with worker(SINK, stage, lago, tmp_path, **there) as process:
            process.start()
            async with within(LIMIT_S):
                while (await lago.stats())["totals"]["events"] < 50:  # it is in the middle of it
                    await asyncio.sleep(0.01)
            harming = asyncio.ensure_future(harm(way, away_s))
            put(stage, [event(number) for number in range(EVENTS // 2, EVENTS)])
            await harming
            healed = time.monotonic()
            await soon(lambda: Counter(statuses(stage).values()) == {"completed": EVENTS}, LIMIT_S)
            drained_s = time.monotonic() - healed
        stats = await lago.stats()
        assert await copies(lago) == Counter(f"e-{number}" for number in range(EVENTS))
    assert stage.read(stage.topics.dlq) == []
    assert harm is reset_again_and_again or stage.read(stage.topics.retry) == []
    assert (stats["totals"]["events"], stats["conflicts"]) == (EVENTS, 0)
    name = harm.__name__.split("_")[-1]
    figures(away_s=away_s, **{f"drained_{name}_s": drained_s, f"repeats_{name}": stats["duplicates"]})
