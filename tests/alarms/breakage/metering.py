"""Faults of the alarms about the meter (deploy/prometheus/rules/metering.yml)."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from schemas.ledger import Position
from tests.alarms import damage
from tests.alarms.breakage.scene import Fault, Scene, sent
from tests.alarms.traffic import CALLERS, OTHER, Traffic
from tests.support.database import rows

#: Bytes a second that a slow network carries on one connection.
_SLOW: Final = 15_000
#: Age of a call whose month may be pruned.
_PRUNED_DAYS: Final = 150


@contextlib.asynccontextmanager
async def partition_halted(scene: Scene) -> AsyncIterator[None]:
    """Calls are deleted before they are read."""
    raw = scene.world.topics.raw
    await scene.stopped("meter-0")
    await scene.traffic.send([scene.traffic.call(customer) for customer in CALLERS])
    await asyncio.to_thread(damage.cut, scene.kafka.bootstrap, raw)
    await scene.started("meter-0")
    yield
    await scene.command("ledger", "init", "--from", "earliest", "--comment", "trial", "--yes")
    await scene.restarted("meter-0")


@contextlib.asynccontextmanager
async def ledger_off(scene: Scene) -> AsyncIterator[None]:
    """A call is counted once too often in a ledger's changelog."""
    topic = scene.world.topics.changelog
    await scene.stopped("meter-0")
    place, value = await asyncio.to_thread(damage.position, scene.kafka.bootstrap, topic)
    position = msgspec.msgpack.decode(value, type=Position)
    position.counters.folded.calls += 1
    await asyncio.to_thread(damage.put, scene.kafka.bootstrap, place, msgspec.msgpack.encode(position))
    await scene.started("meter-0")
    yield
    await scene.stopped("meter-0")
    await asyncio.to_thread(damage.put, scene.kafka.bootstrap, place, value)
    await scene.started("meter-0")


@contextlib.asynccontextmanager
async def unknown_worker_joins(scene: Scene) -> AsyncIterator[None]:
    """A worker that Prometheus does not scrape takes half of the partitions."""
    async with scene.joined_by("meter-1", scraped=False):
        yield


@contextlib.asynccontextmanager
async def meters_network_is_slow(scene: Scene) -> AsyncIterator[None]:
    """While more calls arrive than the network can carry."""
    scene.relays["meter-0"].bytes_per_s = _SLOW
    for _ in range(4):
        calls = [scene.traffic.call(CALLERS[0], cost_usd="0.0000001", id=secrets.token_hex(300)) for _ in range(1000)]
        assert await scene.traffic.send(calls) == 202
    yield
    scene.relays["meter-0"].bytes_per_s = 0


@contextlib.asynccontextmanager
async def api_is_cut_off_from_kafka(scene: Scene) -> AsyncIterator[None]:
    scene.relays["api"].cut()
    yield
    scene.relays["api"].fix()


@contextlib.asynccontextmanager
async def stranger_writes_a_rate_card(scene: Scene) -> AsyncIterator[None]:
    """Each meter that starts later reads it again."""
    await scene.stranger_writes(scene.world.topics.rates, b"no rate card")
    yield


@contextlib.asynccontextmanager
async def late_call_of_a_pruned_month(scene: Scene) -> AsyncIterator[None]:
    """The calls of its month are deleted, so that it is unknown whether it was billed."""
    ended_s = time.time() - _PRUNED_DAYS * 86_400
    await scene.traffic.send(scene.traffic.at(OTHER, ended_s, spend=0.001), "/webhook/litellm/usage")
    logged = "SELECT count(*) FROM llm_usage_log WHERE ended_at < now() - interval '100 days'"
    async with asyncio.timeout(120):
        while (await rows(scene.database, logged))[0][0] == 0:
            await asyncio.sleep(1)
    await scene.command("db", "prune", "--older-than", "100d", "--comment", "trial")
    await scene.traffic.send(scene.traffic.at(OTHER, ended_s + 60, spend=0.001), "/webhook/litellm/usage")
    yield


def _one_request_with_two_ids(traffic: Traffic) -> object:
    now = time.time()
    times = {"startTime": now - 2, "endTime": now - 1, "litellm_call_id": f"one-{now}", "status": "success"}
    return [traffic.flat(OTHER, spend=0.001, **times) for _ in range(2)]


FAULTS: Final[dict[str, Fault]] = {
    "MeterbridgePartitionHalted": partition_halted,
    "MeterbridgeLedgerImbalance": ledger_off,
    "MeterbridgeLedgersNotOpen": unknown_worker_joins,
    "MeterbridgeMeterBehind": meters_network_is_slow,
    "MeterbridgeUsageWithoutPrice": sent(lambda traffic: [traffic.flat(OTHER) for _ in range(30)]),
    "MeterbridgeImplausibleCost": sent(lambda traffic: traffic.flat(OTHER, spend=99_999)),
    "MeterbridgeTwoCallbacks": sent(lambda traffic: traffic.flat(CALLERS[1], spend=0.001)),
    "MeterbridgeBilledTwice": sent(_one_request_with_two_ids),
    "MeterbridgeLateCallsWait": late_call_of_a_pruned_month,
    "MeterbridgeUnreadableRecords": stranger_writes_a_rate_card,
    "MeterbridgeTablesStale": api_is_cut_off_from_kafka,
    "MeterbridgeUnknownCallType": sent(lambda traffic: traffic.flat(OTHER, spend=0.001, call_type="atelepathy")),
}
