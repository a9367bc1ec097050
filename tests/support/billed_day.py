"""A day of calls that ran through meter, sink and projector, is billed at a Lago, and is asked about by commands."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.support.calls import Raw, raw, slp
from tests.support.command import Ended, meterbridge
from tests.support.database import projector_parts, until
from tests.support.http_client import http_client
from tests.support.posting import quick_delivery
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.stage import Stage

METRIC = "ai_usage"


@asynccontextmanager
async def lago_of_org_a() -> AsyncIterator[Lago]:
    """Yield a Lago in which `org-a` has the subscription `sub-a` on a plan that charges usage."""
    async with lago_sandbox(clock=time.time) as sandbox:
        metric = await sandbox.metric(METRIC)
        await sandbox.plan(charges=[{"billable_metric_id": metric, "charge_model": "dynamic", "properties": {}}])
        await sandbox.subscribe(
            "sub-a", "org-a", subscription_at=f"2026-01-{_day_of_periods()}T00:00:00Z", billing_time="anniversary"
        )
        yield sandbox


def _day_of_periods() -> str:
    """Return a day of the month that is a week away from today: in the first hour of a period the one before has no invoice."""
    return "01" if 8 <= time.gmtime().tm_mday <= 22 else "15"


def calls(numbers: range, customer: str, **fields: Any) -> list[Raw]:
    """Calls that end now."""
    at = time.time_ns() // 1000
    return [raw(0, slp(n, at_us=at, **fields), customer=customer, received_us=at) for n in numbers]


class BilledDay:
    """A billed day: its records are in the topics, in Postgres and in Lago."""

    def __init__(self, stage: Stage, database: str, lago: Lago) -> None:
        self.stage, self.database, self.lago = stage, database, lago

    async def bill(self, day: list[Raw], billed: int) -> None:
        """Bill the calls of `acme` at once, those of `late` once it is mapped; `billed` are billed of all."""
        self.stage.map("acme", "org-a", "sub-a")
        self.stage.put(day)
        async with http_client(trust_env=False) as http, projector_parts(self.stage, self.database) as project:
            posting = self.stage.parts(delivery=quick_delivery(self.lago, http))
            async with (
                self.stage.running("meter", self.stage.parts()),
                self.stage.running("sink", posting),
                self.stage.running("project", project),
            ):
                await until(self.database, "SELECT count(*) FROM llm_usage_log", lambda count: bool(count == len(day)))
                self.stage.map("late", "org-a", "sub-a")
                query = "SELECT COALESCE(sum(calls), 0) FROM lago_events WHERE status = 'completed'"
                await until(self.database, query, lambda count: bool(count == billed))

    async def run(self, *words: str, **env: str) -> Ended:
        """Run a command with `--json` and these variables; return its result."""
        access = {"DATABASE_URL": self.database, "LAGO_API_URL": self.lago.url, "LAGO_API_KEY": KEY}
        return await meterbridge(self.stage, *words, "--json", **access, **env)

    async def tamper(self, statement: str) -> None:
        """Change the tables directly, without the product."""
        connection = await asyncpg.connect(self.database)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()
