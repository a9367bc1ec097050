"""One of three brokers is killed under load and comes back, while workers scale and roll: nothing is lost or billed
twice.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.calls import CUSTOMERS
from tests.faults.load import Sender
from tests.faults.run import settle
from tests.faults.scale_trial import Scaled, scaled
from tests.faults.world import SECRET, TOKEN, World, mapped_late, running_world
from tests.support.eventually import PATIENCE
from tests.support.kafka import KafkaCluster
from tests.support.kafka.cluster import REPLICATED

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.xdist_group("three brokers")]

QUICK = {"WINDOW_SECONDS": "5", "GRACE_SECONDS": "1"}
RATE, PAUSE_S, DRAIN_S = 100, 1.5, 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[KafkaCluster]:
    brokers = KafkaCluster()
    yield brokers
    brokers.stop()


async def test_each_of_three_brokers_killed_under_load_loses_no_call_and_no_cent(
    cluster: KafkaCluster, tmp_path: Path, figures: Callable[..., None]
) -> None:
    """One after the other, so also the leader of a partition and the controller of the cluster."""
    async with running_world({}, tmp_path, broker=cluster, common={**REPLICATED, **QUICK}) as world:
        url, done = world.url("ingress") + "/webhook/litellm/usage", asyncio.Event()
        sender = Sender(url, token=TOKEN, secret=SECRET, seed=3, rate=RATE)

        async def kill_each() -> None:
            try:
                for node in cluster.nodes:
                    await asyncio.sleep(PAUSE_S)
                    await asyncio.to_thread(node.kill)
                    await asyncio.sleep(PAUSE_S)
                    await asyncio.to_thread(node.restart)
                    await asyncio.to_thread(cluster.whole)
            finally:
                done.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(sender.run(PAUSE_S, until=done))
            group.create_task(_map_the_rest(world))
            group.create_task(kill_each())
        begun = time.monotonic()
        problems = [*sender.load.refused, *await settle(world, sender.load, print, DRAIN_S * PATIENCE)]
        owed = sender.load.owed
        figures(calls=len(owed.calls), usd=f"{owed.dollars():f}", drained_s=time.monotonic() - begun, brokers=3)
        assert not problems, problems


async def test_workers_that_scale_and_roll_while_a_broker_is_down_lose_and_duplicate_nothing(
    cluster: KafkaCluster, tmp_path: Path, database: str, figures: Callable[..., None]
) -> None:
    report: Scaled = await scaled(
        cluster,
        tmp_path,
        database,
        seed=1,
        rate=RATE,
        pause_s=PAUSE_S,
        drain_limit_s=DRAIN_S * PATIENCE,
        common=QUICK,
    )
    figures(calls=report.calls, usd=report.usd, drained_s=report.drained_s, rolled=report.rolled)
    assert not report.problems, report.problems
    assert report.rolled == 3


async def _map_the_rest(world: World) -> None:
    await asyncio.sleep(PAUSE_S)
    for customer in filter(mapped_late, CUSTOMERS):
        await world.map(customer)
