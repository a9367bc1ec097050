"""Faults of the alarms about incoming usage (deploy/prometheus/rules/ingest.yml)."""

import asyncio
import contextlib
import itertools
import shutil
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

from tests.alarms.breakage.scene import Fault, Scene, meanwhile, sent
from tests.alarms.traffic import CALLERS, OTHER
from tests.faults.world import OURS

#: Requests a second of one token, and file descriptors, of the ingress of a trial.
RATE_LIMIT: Final = 20
DESCRIPTORS: Final = 256
_SERVES: Final = ("serve", "--only", "webhooks")
_AHEAD_S: Final = 2 * 3600


def ingress_command() -> tuple[str, ...]:
    """The command line of a trial's ingress, without its arguments."""
    return (_tool("prlimit"), f"--nofile={DESCRIPTORS}", *OURS)


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"the trial needs {name}")
    return found


@contextlib.asynccontextmanager
async def nothing_arrives(scene: Scene) -> AsyncIterator[None]:
    await asyncio.sleep(100)  # there is a day to compare with
    scene.traffic.flows.clear()
    yield
    scene.traffic.flows.set()


@contextlib.asynccontextmanager
async def sender_is_above_its_rate(scene: Scene) -> AsyncIterator[None]:
    calls = (scene.traffic.call(CALLERS[0], cost_usd="0.0001") for _ in itertools.count())

    async def burst() -> None:
        await asyncio.gather(*(scene.traffic.send(next(calls)) for _ in range(RATE_LIMIT)))

    async with meanwhile(burst, 0.1):
        yield


@contextlib.asynccontextmanager
async def wrong_token(scene: Scene) -> AsyncIterator[None]:
    for _ in range(20):
        await scene.traffic.send({}, headers={"Authorization": "Bearer wrong"})
        await asyncio.sleep(0.5)
    yield


@contextlib.asynccontextmanager
async def no_json(scene: Scene) -> AsyncIterator[None]:
    for _ in range(5):
        await scene.traffic.http.post("/webhooks/litellm", content=b"{")
        await asyncio.sleep(0.5)
    yield


@contextlib.asynccontextmanager
async def kafka_away(scene: Scene) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.kafka.kill)
    yield
    await asyncio.to_thread(scene.kafka.restart)


@contextlib.asynccontextmanager
async def kafka_away_for_long(scene: Scene) -> AsyncIterator[None]:
    await asyncio.to_thread(scene.kafka.kill)
    while await scene.monitor.number("max(meterbridge_spool_bytes / (meterbridge_spool_max_bytes > 0))") < 0.6:
        await scene.traffic.send([scene.traffic.call(CALLERS[0], cost_usd="0.0001") for _ in range(40)])
        await asyncio.sleep(0.5)
    yield
    await asyncio.to_thread(scene.kafka.restart)


@contextlib.asynccontextmanager
async def one_address_opens_many_connections(scene: Scene) -> AsyncIterator[None]:
    """It sends nothing on them."""
    writers: list[asyncio.StreamWriter] = []

    async def open_more() -> None:
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", scene.world.ports["ingress"])
            writers.append(writer)

    for _ in range(DESCRIPTORS // 5):
        await open_more()
    async with meanwhile(open_more, 1.0):
        yield
    for writer in writers:
        writer.close()


@contextlib.asynccontextmanager
async def clock_is_ahead(scene: Scene) -> AsyncIterator[None]:
    """The ingress starts on a machine whose clock is two hours ahead. Calls have their own times."""
    ingress = scene.world.processes["ingress"]
    scene.traffic.flows.clear()

    async def timed_calls() -> None:
        await scene.traffic.send(scene.traffic.at(OTHER, time.time(), spend=0.001), "/webhook/litellm/usage")

    async with meanwhile(timed_calls):
        await scene.stopped("ingress")
        # By `env`, it is not forked from a process that has loaded its modules with the right clock.
        ingress.becomes([_tool("env"), sys.executable, "-m", "tests.support.wrong_clock", str(_AHEAD_S), *_SERVES])
        await scene.started("ingress")
        yield
        await scene.stopped("ingress")
        ingress.becomes([*ingress_command(), *_SERVES])
        await scene.started("ingress")
    scene.traffic.flows.set()


FAULTS: Final[dict[str, Fault]] = {
    "MeterbridgeNothingArrives": nothing_arrives,
    "MeterbridgeIngressRefuses": sender_is_above_its_rate,
    "MeterbridgeSendersUnauthorized": wrong_token,
    "MeterbridgeBodiesRefused": no_json,
    "MeterbridgeUsageRejected": sent(
        lambda traffic: [traffic.call(CALLERS[0], cost_usd="much")] * 2, path="/webhooks/litellm"
    ),
    "MeterbridgeSpooling": kafka_away,
    "MeterbridgeSpoolFillsUp": kafka_away_for_long,
    "MeterbridgeConnectionsFull": one_address_opens_many_connections,
    "MeterbridgeClockWrong": clock_is_ahead,
}
