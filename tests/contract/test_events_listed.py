"""Our client reads every event of a subscription's billing period from the sandbox, or says that it cannot tell."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from connectors.lago.client import LagoClient, lago_http
from schemas.moments import SECOND_US
from tests.support.sandbox import KEY, NOW, Clock, Lago, event, lago_sandbox

FROM, UNTIL = int(NOW) * SECOND_US, (int(NOW) + 1000) * SECOND_US


@asynccontextmanager
async def lago_and_client(**options: Any) -> AsyncIterator[tuple[Lago, LagoClient]]:
    async with lago_sandbox(clock=Clock(), **options) as lago, lago_http(5, 1) as http:
        yield lago, LagoClient(http, lago.url, KEY)


async def names(client: LagoClient, until_us: int = UNTIL, most: int = 1000) -> list[str] | None:
    found = await client.events_of("sub_1", "llm_cost", FROM, until_us, most)
    return None if found is None else sorted(one.transaction_id for one in found)


async def test_all_pages_are_read_with_when_lago_stored_them() -> None:
    async with lago_and_client() as (lago, client):
        assert await names(client) == []
        for start in range(0, 250, 50):
            await lago.post(*(event(f"t{n:03}") for n in range(start, start + 50)))
        await lago.post(event("other", external_subscription_id="sub_2"), event("metric", code="searches"))
        assert await names(client) == [f"t{n:03}" for n in range(250)]
        found = await client.events_of("sub_1", "llm_cost", FROM, UNTIL, 1000)
        assert found is not None
        assert {(one.created_at, one.precise_total_amount_cents) for one in found} == {("2025-03-06T00:00:51Z", "1.25")}


async def test_the_bounds_are_half_open_and_to_the_millisecond() -> None:
    async with lago_and_client() as (lago, client):
        moments = {"before": NOW - 0.001, "first": NOW, "last": NOW + 0.999, "behind": NOW + 1}
        await lago.post(*(event(name, timestamp=f"{at:.3f}") for name, at in moments.items()))
        assert await names(client, FROM + SECOND_US) == ["first", "last"]


async def test_of_more_than_are_read_nothing_is_told() -> None:
    async with lago_and_client() as (lago, client):
        await lago.post(*(event(f"t{n}") for n in range(3)))
        assert await names(client, most=2) is None
        assert await names(client, most=3) == ["t0", "t1", "t2"]


async def test_of_copies_beside_each_other_nothing_is_told() -> None:
    """ClickHouse takes each; which of them an invoice counts depends on how it is set up."""
    async with lago_and_client(store="clickhouse", dedup=True) as (lago, client):
        await lago.post(event("t1"))
        await lago.post(event("t1"))
        assert await names(client) is None
