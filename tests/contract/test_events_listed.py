"""Our client reads every event of a subscription's billing period from the sandbox, or says that it cannot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from connectors.lago.client import LagoClient, lago_http
from connectors.lago.errors import LagoUnavailable
from connectors.lago.events import COPIES, MOVED, TOO_MANY
from connectors.lago.responses import StoredEvent
from schemas.moments import SECOND_US
from tests.support.sandbox import KEY, NOW, Clock, Lago, event, lago_sandbox

FROM, UNTIL = int(NOW) * SECOND_US, (int(NOW) + 1000) * SECOND_US


@asynccontextmanager
async def lago_and_client(**options: Any) -> AsyncIterator[tuple[Lago, LagoClient]]:
    async with lago_sandbox(clock=Clock(), **options) as lago, lago_http(5, 1) as http:
        yield lago, LagoClient(http, lago.url, KEY)


async def listed(client: LagoClient, until_us: int = UNTIL, most: int = 1000) -> tuple[str, list[StoredEvent]]:
    found: list[StoredEvent] = []
    return await client.read_events_of("sub_1", "llm_cost", FROM, until_us, most, found.append), found


async def names(client: LagoClient, until_us: int = UNTIL, most: int = 1000) -> list[str]:
    why, found = await listed(client, until_us, most)
    assert why == ""
    return sorted(one.transaction_id for one in found)


async def test_all_pages_are_read_with_the_time_at_which_lago_stored_each_event() -> None:
    async with lago_and_client() as (lago, client):
        assert await names(client) == []
        for start in range(0, 250, 50):
            await lago.post(*(event(f"t{n:03}") for n in range(start, start + 50)))
        await lago.post(event("other", external_subscription_id="sub_2"), event("metric", code="searches"))
        assert await names(client) == [f"t{n:03}" for n in range(250)]
        _, found = await listed(client)
        assert {(one.created_at, one.precise_total_amount_cents) for one in found} == {("2025-03-06T00:00:51Z", "1.25")}


async def test_the_bounds_include_the_start_and_exclude_the_end_to_the_millisecond() -> None:
    async with lago_and_client() as (lago, client):
        moments = {"before": NOW - 0.001, "first": NOW, "last": NOW + 0.999, "behind": NOW + 1}
        await lago.post(*(event(name, timestamp=f"{at:.3f}") for name, at in moments.items()))
        assert await names(client, FROM + SECOND_US) == ["first", "last"]


async def test_with_more_events_than_are_read_there_is_no_result() -> None:
    async with lago_and_client() as (lago, client):
        await lago.post(*(event(f"t{n}") for n in range(3)))
        assert await listed(client, most=2) == (TOO_MANY, [])
        assert await names(client, most=3) == ["t0", "t1", "t2"]


async def test_events_stored_during_the_reading_are_noticed() -> None:
    """While a page was read, a newer event was stored: the next page begins with one that was listed already."""
    async with lago_and_client() as (lago, client):
        await lago.post(*(event(f"t{n:03}") for n in range(100)))
        await lago.post(event("t100"))
        read: list[str] = []

        def take(one: StoredEvent) -> None:
            read.append(one.transaction_id)

        pages, page = [], client._page

        async def paged(*args: Any, **of: Any) -> Any:
            pages.append(found := await page(*args, **of))
            if len(pages) == 1:
                await lago.post(event("new", timestamp=f"{NOW + 500:.3f}"))
            return found

        client._page = paged  # type: ignore[method-assign]
        assert await client.read_events_of("sub_1", "llm_cost", FROM, UNTIL, 1000, take) == MOVED
        assert len(pages) == 2


@pytest.mark.parametrize("always", [False, True])
async def test_the_canary_reports_no_copy_if_an_event_was_stored_between_two_pages(*, always: bool) -> None:
    """This moves the last event of a page to the next one: the list is read again, but not forever."""
    async with lago_and_client() as (lago, client):
        await lago.post(*(event(f"t{n:03}") for n in range(100)))
        await lago.post(event("t100"))
        pages, members = 0, client._page_members

        async def paged(*args: Any) -> Any:
            nonlocal pages
            pages += 1
            found = await members(*args)
            if pages == 1 or always:
                await lago.post(event(f"new-{pages}", timestamp=f"{NOW + 500:.3f}"))
            return found

        client._page_members = paged  # type: ignore[method-assign]
        if always:
            with pytest.raises(LagoUnavailable, match="changed between its pages, 5 times"):
                await client.events_between("sub_1", "llm_cost", FROM, UNTIL, 1000)
            return
        found = await client.events_between("sub_1", "llm_cost", FROM, UNTIL, 1000)
        assert sorted(one.transaction_id for one in found) == ["new-1", *(f"t{n:03}" for n in range(101))]


async def test_with_two_copies_of_an_event_there_is_no_result() -> None:
    """ClickHouse accepts both; its configuration decides which of them an invoice counts."""
    async with lago_and_client(store="clickhouse", dedup=True) as (lago, client):
        await lago.post(event("t1"))
        await lago.post(event("t1"))
        assert (await listed(client))[0] == COPIES


async def test_invoices_are_listed_from_the_day_of_their_issue_on() -> None:
    """Lago's parameter `issuing_date_from`."""
    asked: list[str] = []
    async with lago_and_client() as (_, client):
        whole = client._every

        async def every(*args: Any, **of: Any) -> Any:
            asked.append(str(args[4]))
            return await whole(*args, **of)

        client._every = every  # type: ignore[method-assign]
        assert await client.invoices("org-a", issued_from="2025-03-04") == []
    assert asked == ["{'external_customer_id': 'org-a', 'issuing_date_from': '2025-03-04'}"]
