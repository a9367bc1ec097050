"""Damaged records in every topic, under load, with every process of the product: each costs itself and nothing else."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from schemas.topics import CATALOGUE
from tests.faults.calls import CUSTOMERS
from tests.faults.evidence import Evidence
from tests.faults.load import Sender
from tests.faults.oracle import Sum, billing_wrong
from tests.faults.vandal import Vandal
from tests.faults.world import ORGS, SECRET, TOKEN, World, mapped_late, running_world, subscription_of
from tests.support.database import migrated_database, rows
from tests.support.eventually import PATIENCE
from tests.support.kafka import Kafka

pytestmark = pytest.mark.faults

_RATE = 80
#: Damaged records for each topic at once, and the seconds between two times: of more at once the broker refuses most, since it
#: refuses all of a batch for one record.
_VANDALISM, _EVERY_S = 5, 0.5
_DRAIN_S = 120.0
#: So long calls are sent after the damage: some of every partition task.
_LAST_S = 5
_HALTED = "partition_halted"


def seconds() -> float:
    """Return how long records are damaged: a quarter of a minute, or MINUTES."""
    return 60 * float(os.environ.get("MINUTES") or 0.25)


async def test_damaged_records_in_every_topic_cost_themselves_alone(
    kafka: Kafka, postgres_url: str, tmp_path: Path, figures: Callable[..., None]
) -> None:
    seed = int(os.environ.get("FAULT_SEED") or 11_01)
    async with (
        migrated_database(postgres_url) as database,
        running_world(os.environ, tmp_path, broker=kafka, common={"DATABASE_URL": database}) as world,
    ):
        await asyncio.gather(*(world.map(customer) for customer in CUSTOMERS if mapped_late(customer)))
        vandal = Vandal(kafka.bootstrap, world.topics, seed, [*CUSTOMERS, *ORGS])
        url = world.url("ingress") + "/webhook/litellm/usage"
        sender = Sender(url, token=TOKEN, secret=SECRET, seed=seed, rate=_RATE)
        await asyncio.gather(sender.run(seconds()), damage(world, vandal))
        vandal.close()
        evidence = Evidence(kafka.bootstrap, world.topics, world.url("sandbox"))
        wrong = await until_billed(evidence, owed_of(sender))
        # What would be billed twice lies before these calls in its partition task, so it is at Lago when they are.
        await sender.run(_LAST_S)
        wrong += await until_billed(evidence, owed_of(sender))
        deaths = [str(d) for process in world.processes.values() for d in process.deaths if d.cause == "by itself"]
        logs = {name: process.log for name, process in world.processes.items() if process.log.exists()}
        halted = [
            line for log in logs.values() for line in log.read_text(errors="replace").splitlines() if _HALTED in line
        ]
        aside = dict(await rows(database, "SELECT reason, count(*) FROM unprojected_records GROUP BY 1"))
    figures(calls=len(sender.load.owed.calls), damaged=vandal.written.total(), aside=sum(aside.values()))
    assert (wrong, deaths, halted, sender.load.refused) == ([], [], [], [])
    assert len(vandal.written) == len(CATALOGUE) and aside["unreadable"] > 0


async def damage(world: World, vandal: Vandal) -> None:
    """For so long, and each meter is opened again meanwhile, so that it reads its changelog."""
    meters = [world.processes[name] for name in ("meter-0", "meter-1")]
    steps = int(seconds() / _EVERY_S)
    for step in range(steps):
        await asyncio.to_thread(vandal.write, _VANDALISM)
        if step in (steps // 3, 2 * steps // 3):
            meter = meters[step > steps // 2]
            async with meter.busy:
                await meter.kill()
                meter.start()
        await asyncio.sleep(_EVERY_S)


def owed_of(sender: Sender) -> Mapping[str, Sum]:
    """Return the amount that is owed for everything that was sent so far, by subscription."""
    return sender.load.owed.by_subscription({customer: subscription_of(customer) for customer in CUSTOMERS})


async def until_billed(evidence: Evidence, owed: Mapping[str, Sum]) -> list[str]:
    """Return the differences from the owed amounts, once there are none or the time is over."""
    wrong = ["never looked"]
    for _ in range(int(_DRAIN_S * PATIENCE)):
        wrong = billing_wrong(_ours(await evidence.stats(), owed), owed)
        if not wrong:
            break
        await asyncio.sleep(1)
    return wrong


def _ours(stats: Mapping[str, Any], owed: Mapping[str, Sum]) -> dict[str, Any]:
    """Without what was made up: some of it reads as sound events, of a subscription that Lago does not have."""
    return {"subscriptions": {name: told for name, told in stats["subscriptions"].items() if name in owed}}
