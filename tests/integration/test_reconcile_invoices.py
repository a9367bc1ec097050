"""The last invoice of a running subscription is compared, too: it is what its customer pays."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal

import msgspec
import pytest

from connectors.lago.client import LagoClient
from connectors.operations.reconcile_lago import compare_with_lago
from connectors.postgres.pool import Database
from schemas.moments import parse_us
from schemas.records import Receipt
from tests.support.database import migrated_database
from tests.support.history import TOPICS
from tests.support.projection import Writer, event, manifest
from tests.support.sandbox import KEY, Clock, Lago, lago_sandbox

METRIC = "ai_usage"


def seconds(moment: str) -> float:
    return parse_us(moment) / 1e6


@dataclass
class Billed:
    """A subscription that runs since November, and what was delivered to it."""

    lago: Lago
    clock: Clock
    url: str

    async def deliver(self, first: int, at: str, cents: str) -> None:
        """Post an event with this timestamp at the present moment; its receipt is `completed`."""
        timestamp = f"{seconds(at):.3f}"
        sent = msgspec.structs.replace(event(first), timestamp=timestamp, precise_total_amount_cents=cents)
        assert (await self.lago.post(msgspec.to_builtins(sent))).status_code == 200
        async with Writer(self.url) as writer:
            await writer.put(TOPICS.events, sent, manifest=manifest(first=first))
            receipt = Receipt(sent.transaction_id, "completed", round(self.clock() * 1e6), "sub", cents, 2)
            await writer.put(TOPICS.receipts, receipt)

    async def invoiced(self) -> None:
        """Lago makes its invoices."""
        assert (await self.lago.get("/invoices")).status_code == 200

    async def complaints(self) -> list[str]:
        client = LagoClient(self.lago.http, self.lago.url, KEY)
        with Database(self.url, size=1) as database:
            compared = await compare_with_lago(database, client, METRIC, round(self.clock() * 1e6))
        assert compared.subscriptions == 1
        return compared.complaints


@pytest.fixture
async def billed(postgres_url: str) -> AsyncIterator[Billed]:
    clock = Clock(seconds("2026-11-05T00:00:00Z"))
    async with migrated_database(postgres_url) as url, lago_sandbox(clock=clock) as lago:
        await lago.usage_plan()
        await lago.subscribe("sub", "org", subscription_at="2026-11-01T00:00:00Z")
        world = Billed(lago, clock, url)
        clock.now = seconds("2026-11-20T12:00:10Z")
        await world.deliver(7, "2026-11-20T12:00:00Z", "145.2")
        yield world


async def test_an_invoice_that_has_what_was_delivered_is_right(billed: Billed) -> None:
    billed.clock.now = seconds("2026-12-03T00:00:00Z")
    await billed.deliver(9, "2026-12-02T00:00:00Z", "31")
    assert await billed.complaints() == []


async def test_usage_that_lago_got_after_the_invoice_of_its_month_is_reported(billed: Billed) -> None:
    """Lago accepts it, and never bills it; earlier only the running month was compared."""
    billed.clock.now = seconds("2026-12-01T02:00:00Z")
    await billed.invoiced()
    await billed.deliver(9, "2026-11-30T23:59:59Z", "100")
    (complaint,) = await billed.complaints()
    assert complaint == (
        "subscription sub: its invoice from 2026-11-01T00:00:00.000000Z to 2026-12-01T00:00:00.000000Z counts 145 cents, "
        "245.2 were delivered and 0 are on their way"
    )


async def test_an_invoice_that_is_not_made_yet_is_no_difference(
    billed: Billed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lago looks once an hour."""
    billed.clock.now = seconds("2026-12-01T00:20:00Z")
    none: list[object] = []

    async def no_invoices(*_: object, **__: object) -> list[object]:
        return none

    monkeypatch.setattr(LagoClient, "invoices", no_invoices)
    assert await billed.complaints() == []
    billed.clock.now = seconds("2026-12-03T00:00:00Z")
    (complaint,) = await billed.complaints()
    assert "no invoice" in complaint and "145.2" in complaint


async def test_a_subscription_of_this_month_has_no_invoice(billed: Billed) -> None:
    assert await billed.complaints() == []
    assert Decimal((await billed.lago.usage("org", "sub"))["amount_cents"]) == 145
