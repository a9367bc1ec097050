"""The orgs' records follow Lago with or without webhooks: our client and the poll with the sandbox."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from connectors.billing.org_sync import OrgSynchroniser
from connectors.lago.client import LagoClient
from schemas.customers import OrgRecord
from schemas.errors import Unavailable
from schemas.moments import SECOND_US, parse_us
from tests.support.sandbox import DAY, KEY, Clock, Lago, lago_sandbox


class Records(dict[str, OrgRecord]):
    """The orgs' records, in memory."""

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        self[org_id] = make(self.get(org_id) or OrgRecord(org_id))
        return self[org_id]


@asynccontextmanager
async def followed(*orgs: str) -> AsyncIterator[tuple[Lago, OrgSynchroniser, Records, Clock]]:
    clock, records = Clock(), Records({org_id: OrgRecord(org_id) for org_id in orgs})
    async with lago_sandbox(clock=clock) as lago, httpx.AsyncClient(trust_env=False) as http:
        await lago.plan()
        await lago.plan("dear", 9900)
        client = LagoClient(http, lago.url, KEY)
        yield (
            lago,
            OrgSynchroniser({}, records, records, client, now_us=lambda: int(clock.now * SECOND_US)),
            records,
            clock,
        )


async def test_a_change_without_a_webhook_is_found_by_the_poll() -> None:
    """Subscribed, changed and ended without a listener; each poll leaves what Lago has, and then has nothing to do."""
    async with followed("org_1", "org_2", "org_3") as (lago, truth, records, clock):
        await lago.subscribe("sub_1", "org_1")
        await lago.subscribe("sub_2", "org_2")
        await lago.subscribe("theirs", "stranger")
        assert [await truth.poll(), await truth.poll()] == [2, 0]
        assert [period.external_id for period in records["org_1"].periods] == ["sub_1"]
        clock.now += 3 * DAY
        await lago.subscribe("sub_1", "org_1", plan="dear")
        await lago.http.delete("/api/v1/subscriptions/sub_2")
        assert [await truth.poll(), await truth.poll()] == [2, 0]
        first, second = records["org_1"].periods
        assert (first.plan_code, first.terminated_at, second.plan_code) == ("llm", second.started_at, "dear")
        assert records["org_1"].plan == "dear"
        [ended] = records["org_2"].periods
        shown = (await lago.get("/subscriptions/sub_2", status="terminated")).json()["subscription"]
        assert ended.terminated_at == parse_us(shown["terminated_at"])
        assert set(records) == {"org_1", "org_2", "org_3"} and records["org_3"] == OrgRecord("org_3")


async def test_subscriptions_on_several_pages_are_all_found() -> None:
    orgs = [f"org_{number}" for number in range(130)]
    async with followed(*orgs) as (lago, truth, records, _):
        await asyncio.gather(*(lago.subscribe(f"sub_{org}", org) for org in orgs))
        truth._sleep = lambda _seconds: asyncio.sleep(0)
        assert [await truth.poll(), await truth.poll()] == [130, 0]
        assert all(len(record.periods) == 1 for record in records.values())


async def test_while_lago_is_unavailable_no_subscription_counts_as_ended() -> None:
    async with followed("org_1") as (lago, truth, records, _):
        await lago.subscribe("sub_1", "org_1")
        await truth.poll()
        before = dict(records)
        await lago.fault(kind="status", status=503, path="/api/v1/subscriptions", method="GET")
        for ask in (truth.poll, lambda: truth.refresh("org_1")):
            with pytest.raises(Unavailable):
                await ask()
        assert records == before
