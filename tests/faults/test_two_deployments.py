"""A second deployment on the same topics: with another name it is refused, with the same name it adds workers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from streams.components import Components
from tests.support.calls import Raw, raw, slp
from tests.support.eventually import soon
from tests.support.http_client import http_client
from tests.support.posting import opened, quick_delivery, statuses
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.stage import QUICK, Stage

pytestmark = pytest.mark.faults

CALLS = 60


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    """Yield a Lago whose store bills a repeat twice, so that a double post becomes visible."""
    async with lago_sandbox(clock=time.time, store="clickhouse", dedup=False) as sandbox:
        yield sandbox


def named(stage: Stage, name: str, **changes: object) -> Components:
    """Return what a worker with this DEPLOYMENT_NAME is built from."""
    group_prefix = f"{stage.settings.topic_prefix}{name}-"
    return stage.parts(replace(QUICK, deployment=name), group_prefix=group_prefix, **changes)


def calls(numbers: range) -> list[Raw]:
    """Calls of several customers, so that every partition has some."""
    at = time.time_ns() // 1000
    return [raw(0, slp(n, at_us=at), customer=f"c-{n % 8}", received_us=at) for n in numbers]


def billed(stage: Stage) -> int:
    return sum(int(event["properties"]["requests"]) for event in stage.values(stage.topics.events))


def map_all(stage: Stage) -> None:
    for number in range(8):
        stage.map(f"c-{number}", "org", "sub")


async def test_of_two_deployments_that_start_on_new_topics_one_bills_and_the_other_is_refused(
    stage: Stage, figures: Callable[..., None]
) -> None:
    """Neither finds data of the other when it opens its ledgers: the first call would go into both."""
    map_all(stage)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(stage.running("meter", named(stage, "one")))
        await opened(first)
        await stack.enter_async_context(stage.running("meter", named(stage, "other")))
        await soon(lambda: len(stage.sensors.halted) == 2, 30)
        stage.put(calls(range(CALLS)))
        await soon(lambda: billed(stage) >= CALLS, 30)
        await asyncio.sleep(1.5)  # a second bill would come now: windows are sealed within a second
    figures(calls=CALLS, billed=billed(stage), refused=len(stage.sensors.halted))
    assert billed(stage) == CALLS
    assert {reason for _, _, reason in stage.sensors.halted} == {"other_deployment"}
    assert {event["transaction_id"].split("-")[0] for event in stage.values(stage.topics.events)} == {"one"}


async def test_events_of_another_deployment_are_not_posted(
    stage: Stage, lago: Lago, figures: Callable[..., None]
) -> None:
    """Its sink has its own group, which starts at the first event: everything that was ever billed."""
    map_all(stage)
    stage.put(calls(range(CALLS)))
    async with http_client(trust_env=False) as http:
        own = named(stage, "one", delivery=quick_delivery(lago, http))
        async with stage.running("meter", own), stage.running("sink", own):
            await soon(lambda: billed(stage) == CALLS and set(statuses(stage).values()) == {"completed"}, 30)
        posts = (await lago.stats())["posts"]
        other = named(stage, "other", delivery=quick_delivery(lago, http))
        async with stage.running("sink", other):
            await soon(lambda: stage.sensors.halted, 30)
            await asyncio.sleep(1)  # time enough to post one after all
    stats = await lago.stats()
    figures(calls=stats["totals"]["calls"], refused=len(stage.sensors.halted))
    assert {reason for _, _, reason in stage.sensors.halted} == {"other_deployment"}
    assert (stats["posts"], stats["totals"]["calls"]) == (posts, CALLS)


async def test_a_second_deployment_of_the_same_name_adds_workers(stage: Stage) -> None:
    map_all(stage)
    async with stage.running("meter", named(stage, "one")) as first, stage.running("meter", named(stage, "one")) as two:
        await soon(
            lambda: (
                first.partition_tasks
                and two.partition_tasks
                and not first.partition_tasks.keys() & two.partition_tasks.keys()
            ),
            30,
        )
        stage.put(calls(range(CALLS)))
        await soon(lambda: billed(stage) >= CALLS, 30)
    assert billed(stage) == CALLS
    assert stage.sensors.halted == []
