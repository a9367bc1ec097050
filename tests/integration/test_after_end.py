"""An end in Lago that nobody told of: what was posted after it is found, named, and billed again once."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from tests.support.calls import Raw, raw, slp
from tests.support.command import Ended, meterbridge
from tests.support.database import projector_parts, rows, until
from tests.support.posting import quick_delivery
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.stage import Stage


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(clock=time.time) as sandbox:
        await sandbox.usage_plan()
        await sandbox.subscribe("sub-a", "org-a", subscription_at="2026-01-01T00:00:00Z")
        yield sandbox


def calls(numbers: range) -> list[Raw]:
    at = time.time_ns() // 1000
    return [raw(0, slp(n, at_us=at, cost="0.01"), received_us=at) for n in numbers]


async def test_what_was_posted_after_an_end_is_billed_again_once(stage: Stage, database: str, lago: Lago) -> None:
    """
    sub-a  ----------| ended in Lago, and nobody here knows        sub-b  |--------
                         u u u  three calls, "completed"                  u u u
    """

    async def run(*words: str) -> Ended:
        access = {"DATABASE_URL": database, "LAGO_API_URL": lago.url, "LAGO_API_KEY": KEY}
        return await meterbridge(stage, *words, "--json", **access)

    stage.map("acme", "org-a", "sub-a")
    completed = "SELECT COALESCE(sum(calls), 0)::int FROM lago_events WHERE status = 'completed'"
    async with httpx.AsyncClient(trust_env=False) as http, projector_parts(stage, database) as base:
        delivery = quick_delivery(lago, http)
        parts = replace(base, delivery=lambda: delivery)
        async with (
            stage.running("meter", parts),
            stage.running("sink", parts),
            stage.running("project", parts),
        ):
            stage.put(calls(range(2)))
            await until(database, completed, lambda count: count == 2)
            await lago.http.delete("/api/v1/subscriptions/sub-a")
            await asyncio.sleep(2.1)
            stage.put(calls(range(2, 5)))
            await until(database, completed, lambda count: count == 5)
            assert (await lago.stats())["totals"]["billed_cents"] == "2"
            [complaint] = (await run("reconcile", "--lago")).json["complaints"]
            assert "3 cents were delivered to it with a moment after its end" in complaint
            nowhere = await run("lago", "rebill", "--dry-run")
            assert (nowhere.code, {one["on"] for one in nowhere.json}) == (1, {None}), nowhere.err
            await lago.subscribe("sub-b", "org-a")
            done = await run("lago", "rebill", "--why", "it had ended")
            assert (done.code, {one["on"] for one in done.json}) == (0, {"sub-b"}), done.err
            failed = "SELECT count(*)::int FROM lago_events WHERE reason = 'unbillable_ended'"
            await until(database, failed, lambda count: count == len(done.json))
            await until(database, completed, lambda count: count == 5)
            again = await run("lago", "rebill")
            assert (again.code, again.json) == (0, []), again.err
    assert (await lago.stats())["totals"]["billed_cents"] == "5"
    assert (await run("reconcile", "--lago")).json["complaints"] == []
    [(action, reason, cost)] = await rows(
        database, "SELECT action, reason, cost_usd FROM audit_log WHERE action = 'lago.rebill'"
    )
    assert (action, reason, str(cost)) == ("lago.rebill", "it had ended", "0.03")
