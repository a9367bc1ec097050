"""Kafka is killed, frozen, disconnected and silent under load, with everything else running: from webhook to Lago every
cent is billed once.

senders ──> ingress ──┐
                      ├──> wire ──> broker          the wire is cut, reset, held still; the broker frozen, killed
meter, sink, retry ───┘
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.calls import CUSTOMERS
from tests.faults.load import Sender
from tests.faults.run import settle
from tests.faults.world import SECRET, TOKEN, World, mapped_late, running_world
from tests.support.kafka import MavenKafka
from tests.support.ports import free_port
from tests.support.wire import Wire, wire

pytestmark = [pytest.mark.faults, pytest.mark.kafka]

RATE = 40
#: Between two faults: everybody is back at work, or not yet.
BREATH_S = 2.0


@asynccontextmanager
async def wired_world(folder: Path) -> AsyncIterator[tuple[World, Wire, MavenKafka]]:
    """Yield a world in which every byte to and from Kafka passes through a relay; the ingress has a spool."""
    port = free_port()
    async with wire(port) as way:
        outside = f"127.0.0.1:{way.port}"
        settings = {"advertised.listeners": f"PLAINTEXT://{outside}"}
        broker = await asyncio.to_thread(MavenKafka, settings, port)
        broker.bootstrap = outside
        try:
            spool = {"SPOOL_PATH": str(folder / "spool.db")}
            async with running_world(os.environ, folder, broker=broker, ingress=spool) as world:
                await asyncio.gather(*(world.map(customer) for customer in CUSTOMERS if mapped_late(customer)))
                yield world, way, broker
        finally:
            broker.stop()


@asynccontextmanager
async def load(world: World, seed: int) -> AsyncIterator[Sender]:
    """Calls over HTTP, from two seconds before the block until each call sent in it has its 202."""
    url = world.url("ingress") + "/webhook/litellm/usage"
    sender, healed = Sender(url, token=TOKEN, secret=SECRET, seed=seed, rate=RATE), asyncio.Event()
    sending = asyncio.ensure_future(sender.run(2.0, until=healed))
    try:
        await asyncio.sleep(2.0)  # usage is on its way before anything breaks
        yield sender
    finally:
        healed.set()
        await sending


async def settled_after_s(world: World, sender: Sender) -> float:
    """Return the seconds until everything was billed; check that all ledgers add up and every cent is billed once."""
    calm = time.monotonic()
    problems = await settle(world, sender.load, lambda _: None)
    problems += [f"refused: {refused}" for refused in sender.load.refused]
    logs = {name: process.tail() for name, process in world.processes.items()}
    problems += [f"{name} halted a lane" for name, process in world.processes.items() if _halted(process.log)]
    assert not problems, (problems, logs)
    return time.monotonic() - calm


def _halted(log: Path) -> bool:
    return log.exists() and "partition_halted" in log.read_text(errors="replace")


async def test_a_killed_frozen_silent_and_disconnected_kafka_and_a_killed_ingress_lose_no_call(
    tmp_path: Path, figures: Callable[..., None], *, long_faults: bool
) -> None:
    """Calls answered 202 while the broker is down are only on the ingress's disk. The other faults last long enough for
    requests to time out, and in the long run for sessions and transactions to end.
    """
    away_s, silent_s = (60.0, 40.0) if long_faults else (9.0, 8.0)
    async with wired_world(tmp_path) as (world, way, broker):
        async with load(world, seed=1) as sender:
            accepted = await _down(world, broker, sender, away_s)
            await asyncio.sleep(BREATH_S)
            await _frozen(broker, silent_s)
            await asyncio.sleep(BREATH_S)
            way.passing.clear()
            await asyncio.sleep(silent_s)
            way.passing.set()
            await asyncio.sleep(BREATH_S)
            opened = way.opened
            for _ in range(20):
                await way.reset()
                await asyncio.sleep(0.2)
            await way.cut()
            await asyncio.sleep(3.0)  # the time that the network is cut
            await way.join()
            await asyncio.sleep(BREATH_S)
        drained_s = await settled_after_s(world, sender)
    assert accepted > 0
    owed = sender.load.owed
    figures(
        away_s=away_s,
        ingress_killed=2,
        frozen_s=silent_s,
        silent_s=silent_s,
        connections=way.opened - opened,
        calls=len(owed.calls),
        usd=f"{owed.dollars():f}",
        drained_s=drained_s,
    )


async def _down(world: World, broker: MavenKafka, sender: Sender, for_s: float) -> int:
    """Kill the broker, kill the ingress twice, and start the broker again; return how many calls got 202 meanwhile."""
    ingress = world.processes["ingress"]
    before = sender.load.answers["202"]
    await asyncio.to_thread(broker.kill)
    for _ in range(2):
        await asyncio.sleep(for_s / 3)
        async with ingress.busy:
            await ingress.kill()
            ingress.start()
    await asyncio.sleep(for_s / 3)
    accepted = sender.load.answers["202"] - before
    await asyncio.to_thread(broker.restart)
    return accepted


async def _frozen(broker: MavenKafka, for_s: float) -> None:
    assert broker._process is not None
    broker._process.send_signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(for_s)
    finally:
        broker._process.send_signal(signal.SIGCONT)
