"""Loops over all customers do not block the event loop of the management API: a million customers take a second of CPU
time, and other requests go on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from connectors.billing.in_slices import SLICE, in_slices
from connectors.billing.mapping_retention import MappingRetention
from connectors.billing.mappings import Mappings
from connectors.billing.org_sync import OrgSynchroniser
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from tests.support.books import Books, Records

NOW = 1_750_000_000_000_000
SLICES = 5
PASSES = ("discovery", "active customers", "forgetting", "a webhook")


def customers() -> dict[str, CustomerRecord]:
    version = MappingVersion(0, "org_1", "tenant")
    names = (f"customer-{number}" for number in range(SLICES * SLICE))
    return {name: CustomerRecord(name, (version,), 0, 0) for name in names}


class Turns:
    """Counts how often another task runs."""

    def __init__(self) -> None:
        self.count = 0

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self._run())
        await asyncio.sleep(0)
        self.count = 0
        yield
        task.cancel()

    async def _run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


class Counted(dict[str, CustomerRecord]):
    """A table that counts how often all of it is copied."""

    passes = 0

    def items(self) -> Any:
        self.passes += 1
        return super().items()


def passes(table: dict[str, CustomerRecord]) -> dict[str, Callable[[], Awaitable[object]]]:
    """Each loop of the management API over all customers, by its name."""
    records = Records(OrgRecord("org_1", periods=(Period("sub_1", 0),)))
    discovery = SubscriptionDiscovery(table, records.all, records, Books(), now_us=lambda: NOW)
    view, none = cast(Any, SimpleNamespace(table=table)), cast(Any, None)
    mappings = Mappings(view, view, none, none, mapping_delay_us=0, keep_us=0, now_us=lambda: NOW)
    forgetting = MappingRetention(table, none, none, lambda: NOW)
    truth = OrgSynchroniser(*(table, records.all, records, Books()), now_us=lambda: NOW, is_org=lambda _org_id: False)
    return {
        "discovery": discovery.discover_all,
        "active customers": mappings.active_customers,
        "forgetting": forgetting.look,
        "a webhook": lambda: truth.refresh("org_of_nobody"),
    }


@pytest.mark.parametrize("name", PASSES)
async def test_other_tasks_run_while_all_customers_are_read(name: str) -> None:
    turns, work = Turns(), passes(customers())[name]
    async with turns.counted():
        await work()
    assert turns.count >= SLICES


async def test_a_table_that_changes_during_the_loop_is_read_as_it_was_at_the_start() -> None:
    table = {number: number for number in range(10)}
    seen = []
    async for part in in_slices(table.values(), 4):
        table.clear()
        seen.append(part)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_concurrent_requests_for_the_number_of_customers_share_one_loop() -> None:
    """Any caller may ask, and each loop holds a copy of the table."""
    table = Counted(customers())
    count = passes(table)["active customers"]
    assert await asyncio.gather(*(count() for _ in range(50))) == [SLICES * SLICE] * 50
    assert table.passes == 1
    assert await count() == SLICES * SLICE and table.passes == 2


async def test_the_count_of_active_customers_is_right_across_slices() -> None:
    table = customers()
    ended = MappingVersion(1, "", "tenant", is_active=False, deleted=True)
    table["customer-1"] = CustomerRecord("customer-1", (ended,), 0, 0)
    assert await passes(table)["active customers"]() == SLICES * SLICE - 1
