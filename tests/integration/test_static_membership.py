"""Static membership: a worker with its own name gets its partitions back, and no other worker is disturbed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from prometheus_client import CollectorRegistry

from connectors.processes.worker_parts import parts_of
from connectors.telemetry.metrics import Metrics
from streams.app import ROLES
from streams.components import Components
from streams.runtime.role import Role
from streams.runtime.run import run_role
from tests.support.eventually import soon
from tests.support.kafka import Kafka
from tests.support.stage import Stage

PARTITIONS = 4


@pytest.fixture
def stage(kafka: Kafka, topic_prefix: str) -> Stage:
    return Stage(kafka.bootstrap, topic_prefix, partitions=PARTITIONS)


def parts_named(stage: Stage, pod_name: str | None) -> Components:
    def no_delivery() -> NoReturn:
        raise AssertionError("the meter posts nothing")

    settings = stage.settings.model_copy(update={"pod_name": pod_name})
    return parts_of(settings, no_delivery, Metrics(CollectorRegistry(), "0"))


@asynccontextmanager
async def meter(stage: Stage, pod_name: str | None) -> AsyncIterator[Role]:
    """A meter with a process's own stop, but without the process."""
    role, stop = ROLES["meter"](parts_named(stage, pod_name)), asyncio.Event()
    task = asyncio.ensure_future(run_role(role, stop))
    try:
        yield role
    finally:
        stop.set()
        await task


def opened(role: Role) -> frozenset[int]:
    """Partitions whose partition tasks are open; none while one is still opening."""
    partition_tasks = dict(role.partition_tasks)
    ready = all(partition_task.expected is not None for partition_task in partition_tasks.values())
    return frozenset(partition_tasks) if ready else frozenset()


def count_rebalances(role: Role) -> list[frozenset[int]]:
    """A list that grows by one whenever partitions are revoked from this member."""
    taken: list[frozenset[int]] = []

    async def note(_app: Any, revoked: Any, **_: Any) -> None:
        taken.append(frozenset(tp.partition for tp in revoked))

    role.app.on_partitions_revoked.connect(note, weak=False)
    return taken


async def both_share(first: Role, second: Role) -> None:
    await soon(lambda: opened(first) and opened(second) and len(opened(first) | opened(second)) == PARTITIONS, 30)


async def test_a_named_worker_that_restarts_twice_keeps_its_partitions_and_disturbs_no_other(stage: Stage) -> None:
    """Otherwise a rolling restart of a StatefulSet would stop every worker once for each pod."""
    async with meter(stage, "meter-0") as steady:
        async with meter(stage, "meter-1") as restarted:
            await both_share(steady, restarted)
            own = opened(restarted)
        others, taken = opened(steady), count_rebalances(steady)
        for _ in range(2):
            async with meter(stage, "meter-1") as restarted:
                await soon(lambda restarted=restarted: opened(restarted) == own, 30)  # type: ignore[misc]
                assert opened(steady) == others
        assert taken == []


async def test_without_a_name_partitions_move_at_once_when_a_worker_stops(stage: Stage) -> None:
    """A pod that is gone permanently, like a Deployment's, must not leave its partitions without an owner for a
    session.
    """
    async with meter(stage, None) as steady:
        async with meter(stage, None) as leaving:
            await both_share(steady, leaving)
            taken = count_rebalances(steady)
        await soon(lambda: len(opened(steady)) == PARTITIONS)
        assert len(taken) == 1


@pytest.mark.parametrize("name", ["meter", "sink", "retry"])
async def test_every_role_takes_its_name_from_the_pods(stage: Stage, name: str) -> None:
    """Several roles of one pod are members of several groups."""
    assert ROLES[name](parts_named(stage, "worker-3")).app.conf.consumer_group_instance_id == f"worker-3-{name}"
