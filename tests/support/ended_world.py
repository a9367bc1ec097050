"""A running product with an org whose subscription has ended in Lago; the product does not know this yet."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import msgspec

from connectors.lago.client import LagoClient, lago_http
from connectors.operations.automatic_rebilling import LearntEnds
from connectors.operations.rebilling import Rebilling
from connectors.operations.sender import CommandProducer
from connectors.postgres.pool import Database
from schemas.customers import OrgRecord, Period
from schemas.moments import SECOND_US, parse_us
from schemas.policy import MeterPolicy, OutOfPeriodPolicy
from tests.support.calls import Raw, raw, slp
from tests.support.command import Ended, meterbridge
from tests.support.database import projector_parts, rows, until
from tests.support.eventually import PATIENCE, soon, within
from tests.support.http_client import http_client
from tests.support.posting import quick_delivery
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.stage import Stage

#: What is called is an event moments later.
AT_ONCE = MeterPolicy(window_us=SECOND_US // 5, grace_us=0, quiet_us=SECOND_US // 10)
COMPLETED = "SELECT COALESCE(sum(calls), 0)::int FROM lago_events WHERE status = 'completed'"
REBILLED = """
SELECT COALESCE(sum(calls), 0)::int FROM lago_events WHERE status = 'completed' AND transaction_id LIKE '%-again'
"""
FAILED = "SELECT count(*)::int FROM lago_events WHERE reason = 'unbillable_ended'"


@asynccontextmanager
async def lago_with_sub_a(**options: Any) -> AsyncIterator[Lago]:
    """Yield a sandbox with these options, in which org-a has the subscription sub-a."""
    async with lago_sandbox(**{"clock": time.time, **options}) as sandbox:
        await sandbox.usage_plan()
        await sandbox.subscribe("sub-a", "org-a", subscription_at="2026-01-01T00:00:00Z")
        yield sandbox


def calls(numbers: range, at_us: int | None = None) -> list[Raw]:
    """Calls of that moment, or of now, a cent each."""
    now = time.time_ns() // 1000
    at = now if at_us is None else at_us
    return [raw(0, slp(n, at_us=at, cost="0.01"), received_us=now) for n in numbers]


@dataclass
class LagoHistory:
    """Keeps what the task reports."""

    outcomes: dict[str, int] = field(default_factory=dict)
    waits: tuple[int, Decimal] = (0, Decimal(0))

    def rebilled(self, outcome: str, events: int) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + events

    def after_end(self, events: int, usd: Decimal) -> None:
        self.waits = events, usd


class World:
    """A product that runs; sub-a has ended in Lago, and three calls went to it afterwards.

    sub-a  ----------| ended in Lago, and no one here knows
                         u u u  three calls, "completed"
    """

    def __init__(self, stage: Stage, database: str, lago: Lago, partition_tasks: Any, http: httpx.AsyncClient) -> None:
        self.stage, self.url, self.lago, self.partition_tasks = stage, database, lago, partition_tasks
        self.pool = Database(database, size=1)
        self.reported = LagoHistory()
        self.asked: list[str] = []
        self.client = LagoClient(http, lago.url, KEY, lambda name, *_: self.asked.append(name))
        self.ended_us = 0

    async def command(self, *words: str) -> Ended:
        access = {"DATABASE_URL": self.url, "LAGO_API_URL": self.lago.url, "LAGO_API_KEY": KEY}
        return await meterbridge(self.stage, *words, "--json", **access)

    def task(
        self, make_rebilling: Any = Rebilling, late: OutOfPeriodPolicy = OutOfPeriodPolicy.SHIFT, **changes: Any
    ) -> LearntEnds:
        """Return the task as a new process has it."""
        own = self.stage.deployment
        deployment = replace(own, policy=replace(own.policy, out_of_period_policy=late))
        sender = partial(CommandProducer, own.kafka)
        options = {"lago": self.client, "make_rebilling": make_rebilling, "monotonic": lambda: float("inf"), **changes}
        lago = options.pop("lago")
        lagos = {} if lago is None else {"": lago}
        return LearntEnds(
            deployment, self.pool, self.partition_tasks, self.reported, lagos, make_sender=sender, **options
        )

    async def learn(self, *periods: Period) -> None:
        """Set the org's record, and wait until the projector has read it, as after a webhook or a poll."""
        org = OrgRecord("org-a", periods=periods, updated_at=time.time_ns() // 1000)
        self.stage.producer.produce(self.stage.topics.orgs, msgspec.json.encode(org), "org-a")
        self.stage.producer.flush(10 * PATIENCE)
        stands = "SELECT (extract(epoch FROM updated_at) * 1000000)::bigint FROM organisations WHERE org_id = 'org-a'"
        await until(self.url, stands, lambda at: at == org.updated_at)

    async def learn_of_the_end(self, *following: Period) -> None:
        await self.learn(Period("sub-a", 0, self.ended_us), *following)

    async def events(self) -> int:
        """Return how many have a moment after the end: Lago reports it to the second, so from the next second on, its
        first instant included.
        """
        after = "SELECT count(*)::int FROM lago_events WHERE org_id = 'org-a' AND billed_at >= to_timestamp($1)"
        [(count,)] = await rows(self.url, after, self.ended_us / SECOND_US + 1)
        return int(count)

    async def overtaken(self, numbers: range) -> None:
        """Calls from before the end of the subscription reach Lago only now, because they were delayed."""
        [(before,)] = await rows(self.url, COMPLETED)
        self.stage.put(calls(numbers, self.ended_us - SECOND_US))
        await until(self.url, COMPLETED, lambda count: count == before + len(numbers))

    async def billed_cents(self, cents: int) -> None:
        """Wait until the invoices contain this number of cents; then check that each event was posted once."""
        async with within(60):
            while (await self.lago.stats())["totals"]["billed_cents"] != str(cents):
                await asyncio.sleep(0.05)
        ids = [one["transaction_id"] for one in self.stage.values(self.stage.topics.events)]
        assert len(ids) == len(set(ids))


@asynccontextmanager
async def ended_world(stage: Stage, database: str, lago: Lago, *, invoiced: bool = True) -> AsyncIterator[World]:
    """Yield a product that runs, after sub-a has ended and three calls went to it; see `World`. `invoiced`: with a last
    invoice.
    """
    stage.map("acme", "org-a", "sub-a")
    async with (
        http_client(trust_env=False) as http,
        lago_http(5, 1) as asking,
        projector_parts(stage, database) as base,
    ):
        delivery = quick_delivery(lago, http)
        parts = replace(base, delivery=lambda: delivery, policy=AT_ONCE)
        async with (
            stage.running("meter", parts),
            stage.running("sink", parts),
            stage.running("project", parts) as projector,
        ):
            world = World(stage, database, lago, projector.partition_tasks, asking)
            stage.put(calls(range(2)))
            await until(database, COMPLETED, lambda count: count == 2)
            how = {} if invoiced else {"on_termination_invoice": "skip"}
            answer = await lago.http.delete("/api/v1/subscriptions/sub-a", params=how)
            world.ended_us = parse_us(answer.json()["subscription"]["terminated_at"])
            # Lago reports an end to the second, so usage within that second may be before or after it.
            await soon(lambda: time.time_ns() // 1000 > world.ended_us + SECOND_US)
            stage.put(calls(range(2, 5)))
            await until(database, COMPLETED, lambda count: count == 5)
            assert (await lago.stats())["totals"]["billed_cents"] == ("2" if invoiced else "0")
            yield world
            world.pool.terminate()
