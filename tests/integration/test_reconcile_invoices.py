"""The last invoice of a running subscription is compared, too: it is what its customer pays."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from connectors.lago.client import LagoClient
from connectors.lago.responses import Charge, Invoice, Plan
from connectors.operations.plan_prices import PlanPrices
from connectors.operations.reconcile_lago import LagoComparison, compare_with_lago
from connectors.postgres.pool import Database
from schemas.moments import MAX_US, parse_us
from schemas.records import Receipt
from streams.core.metering.reconciliation import LagoUsage
from tests.support.credits import give, prepaid_since
from tests.support.database import migrated_database
from tests.support.history import TOPICS
from tests.support.projection import Writer, event, manifest, usage
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

    async def deliver(self, first: int, at: str, cents: str, *, posted: bool = True) -> None:
        """Post an event with this timestamp at the present moment; its receipt is `completed`."""
        timestamp = f"{seconds(at):.3f}"
        sent = msgspec.structs.replace(event(first), timestamp=timestamp, precise_total_amount_cents=cents)
        assert not posted or (await self.lago.post(msgspec.to_builtins(sent))).status_code == 200
        async with Writer(self.url) as writer:
            await writer.put(TOPICS.events, sent, manifest=manifest(first=first))
            receipt = Receipt(sent.transaction_id, "completed", round(self.clock() * 1e6), "sub", cents, 2)
            await writer.put(TOPICS.receipts, receipt)

    async def invoiced(self) -> None:
        """Lago makes its invoices."""
        assert (await self.lago.get("/invoices")).status_code == 200

    async def last_month(self, *, ended: bool) -> None:
        """Lago makes the invoice of the month, or of the subscription's end on its last day."""
        if ended:
            self.clock.now = seconds("2026-11-30T23:00:00Z")
            assert (await self.lago.http.delete("/api/v1/subscriptions/sub")).status_code == 200
        self.clock.now = seconds("2026-12-02T00:00:00Z")
        await self.invoiced()

    async def compared(self) -> LagoComparison:
        client = LagoClient(self.lago.http, self.lago.url, KEY)
        with Database(self.url, size=1) as database:
            return await compare_with_lago(database, client, METRIC, round(self.clock() * 1e6))

    async def complaints(self) -> list[str]:
        compared = await self.compared()
        assert compared.subscriptions + compared.not_compared == 1
        assert compared.notes == []
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
        "245.2 were delivered, and it may count 0 more"
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


@pytest.mark.parametrize("ended", [False, True])
async def test_a_charge_that_is_paid_in_advance_is_not_on_the_invoice_of_the_month(
    billed: Billed, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """Each of its events has an invoice of its own. Earlier the one of the last event was taken for the last invoice."""
    await billed.last_month(ended=ended)
    read = LagoClient.invoice

    async def of_one_event(client: LagoClient, lago_id: str) -> Invoice | None:
        invoice = await read(client, lago_id)
        assert invoice is not None
        fees = (msgspec.structs.replace(fee, amount_cents=1, pay_in_advance=True) for fee in invoice.fees)
        return msgspec.structs.replace(invoice, fees=tuple(fees))

    monkeypatch.setattr(LagoClient, "invoice", of_one_event)
    assert await billed.complaints() == []


@pytest.mark.parametrize("ended", [False, True])
async def test_what_an_earlier_plan_charged_in_advance_hides_no_difference(
    billed: Billed, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """The invoices of its events are among those that are read. Another plan is another subscription of Lago's."""
    await billed.last_month(ended=ended)
    await billed.deliver(9, "2026-11-30T21:59:59Z", "100")
    read, listed = LagoClient.invoice, LagoClient.invoices

    async def invoices(client: LagoClient, *args: Any, **filters: Any) -> list[Invoice]:
        (last,) = await listed(client, *args, **filters)
        return [last, msgspec.structs.replace(last, lago_id=f"{last.lago_id}#earlier")]

    async def invoice(client: LagoClient, lago_id: str) -> Invoice | None:
        name, _, is_earlier = lago_id.partition("#")
        one = await read(client, name)
        if one is None or not is_earlier:
            return one
        of_plan = {"pay_in_advance": True, "lago_subscription_id": "of-the-earlier-plan"}
        fees = tuple(msgspec.structs.replace(fee, **of_plan) for fee in one.fees)
        return msgspec.structs.replace(one, lago_id=lago_id, fees=fees, billing_periods=())

    monkeypatch.setattr(LagoClient, "invoices", invoices)
    monkeypatch.setattr(LagoClient, "invoice", invoice)
    (complaint,) = (await billed.compared()).complaints
    assert "counts 145 cents, 245.2 were delivered" in complaint


@pytest.mark.parametrize("lost", [False, True])
async def test_the_invoice_that_a_change_of_plan_made_is_compared(
    billed: Billed, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """The plan before is another subscription of Lago's; earlier its last invoice was not compared, and counted as right."""
    billed.clock.now = seconds("2026-11-25T00:00:00.500Z")
    await billed.lago.usage_plan("larger", 100)
    await billed.lago.subscribe("sub", "org", "larger")
    await billed.deliver(9, "2026-11-25T00:00:00.900Z", "31")
    billed.clock.now = seconds("2026-12-03T00:00:00Z")
    await billed.invoiced()
    read = LagoClient.invoice

    async def without_fees(client: LagoClient, lago_id: str) -> Invoice | None:
        one = await read(client, lago_id)
        assert one is not None
        fees = (fee for fee in one.fees if (fee.item.type, fee.amount_cents) != ("charge", 145))
        return msgspec.structs.replace(one, fees=tuple(fees))

    if lost:
        monkeypatch.setattr(LagoClient, "invoice", without_fees)
    compared = await billed.compared()
    assert (compared.subscriptions, compared.not_compared, compared.notes) == (1, 0, [])
    assert [f"{one.partition(', its')[0]}{one.partition('counted')[2]}" for one in compared.complaints] == [
        "subscription sub: before it started again 0 cents, 145.2 were delivered, and it may count 31 more"
    ] * lost


async def test_a_subscription_of_this_month_has_no_invoice(billed: Billed) -> None:
    assert await billed.complaints() == []
    assert Decimal((await billed.lago.usage("org", "sub"))["amount_cents"]) == 145


def _with_status(monkeypatch: pytest.MonkeyPatch, *statuses: str) -> None:
    """Let Lago show the one invoice once for each status, the latest first."""
    read, listed = LagoClient.invoice, LagoClient.invoices

    async def invoice(client: LagoClient, lago_id: str) -> Invoice | None:
        name, _, status = lago_id.partition("#")
        one = await read(client, name)
        return one and msgspec.structs.replace(one, lago_id=lago_id, status=status)

    async def invoices(client: LagoClient, *args: Any, **filters: Any) -> list[Invoice]:
        all_of_them = await listed(client, *args, **filters)
        copies = ((one, status) for one in all_of_them for status in statuses)
        return [
            msgspec.structs.replace(one, lago_id=f"{one.lago_id}#{status}", status=status) for one, status in copies
        ]

    monkeypatch.setattr(LagoClient, "invoice", invoice)
    monkeypatch.setattr(LagoClient, "invoices", invoices)


@pytest.mark.parametrize("ended", [False, True])
async def test_a_failed_invoice_bills_nothing(billed: Billed, monkeypatch: pytest.MonkeyPatch, ended: bool) -> None:
    await billed.last_month(ended=ended)
    _with_status(monkeypatch, "failed")
    compared = await billed.compared()
    (complaint,) = compared.complaints
    assert "has failed in Lago, 145.2 cents were delivered: retry the invoice in Lago" in complaint


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("status", "day", "note"),
    [
        ("draft", "2026-12-02", ""),
        ("pending", "2026-12-02", ""),
        ("draft", "2026-12-05", "is still draft, so it was not compared: 145.2 cents were delivered"),
        ("pending", "2026-12-05", "is still pending, so it was not compared: 145.2 cents were delivered"),
        ("voided", "2026-12-02", "is voided, and no finalized one follows it, so it was not compared: 145.2 cents"),
    ],
)
async def test_an_invoice_that_is_not_final_is_not_compared(
    billed: Billed, monkeypatch: pytest.MonkeyPatch, status: str, day: str, note: str, ended: bool
) -> None:
    await billed.last_month(ended=ended)
    billed.clock.now = seconds(f"{day}T00:00:00Z")
    _with_status(monkeypatch, status)
    compared = await billed.compared()
    assert (compared.subscriptions, compared.not_compared, compared.complaints) == (0, 1, [])
    assert [note in one for one in compared.notes] == ([True] if note else [])


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("statuses", [("finalized", "voided"), ("voided", "finalized")])
async def test_the_successor_of_a_voided_invoice_is_compared(
    billed: Billed, monkeypatch: pytest.MonkeyPatch, statuses: tuple[str, str], ended: bool
) -> None:
    await billed.last_month(ended=ended)
    _with_status(monkeypatch, *statuses)
    compared = await billed.compared()
    assert (compared.subscriptions, compared.complaints, compared.notes) == (1, [], [])


@pytest.mark.parametrize("ended", [False, True])
async def test_a_subscription_that_no_read_invoice_names_is_not_compared(
    billed: Billed, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """Of an org, the 24 latest invoices are read; those of its other subscriptions may fill them."""
    await billed.last_month(ended=ended)
    _with_status(monkeypatch, *(f"finalized{number}" for number in range(24)))
    of_status = LagoClient.invoice

    async def of_others(client: LagoClient, lago_id: str) -> Invoice | None:
        one = await of_status(client, lago_id)
        return one and msgspec.structs.replace(one, fees=(), billing_periods=())

    monkeypatch.setattr(LagoClient, "invoice", of_others)
    compared = await billed.compared()
    assert (compared.subscriptions, compared.not_compared, compared.complaints) == (0, 1, [])
    (note,) = compared.notes
    assert "it is not among the 24 latest invoices of org" in note


@pytest.mark.parametrize("ended", [False, True])
async def test_an_invoice_of_an_earlier_period_that_was_made_again_is_not_taken_for_the_last_one(
    billed: Billed, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """A voided invoice that a person makes again is the newest of the list."""
    await billed.last_month(ended=ended)
    read, listed = LagoClient.invoice, LagoClient.invoices

    async def invoices(client: LagoClient, *args: Any, **filters: Any) -> list[Invoice]:
        (last,) = await listed(client, *args, **filters)
        return [msgspec.structs.replace(last, lago_id=f"{last.lago_id}#earlier"), last]

    async def invoice(client: LagoClient, lago_id: str) -> Invoice | None:
        name, _, is_earlier = lago_id.partition("#")
        one = await read(client, name)
        if one is None or not is_earlier:
            return one
        then = {"from_date": "2026-10-01T00:00:00Z", "to_date": "2026-10-31T23:59:59Z"}
        charged = {"charges_from_datetime": then["from_date"], "charges_to_datetime": then["to_date"]}
        fees = tuple(msgspec.structs.replace(fee, **then) for fee in one.fees)
        periods = tuple(msgspec.structs.replace(period, **charged) for period in one.billing_periods)
        return msgspec.structs.replace(one, lago_id=lago_id, fees=fees, billing_periods=periods)

    monkeypatch.setattr(LagoClient, "invoices", invoices)
    monkeypatch.setattr(LagoClient, "invoice", invoice)
    compared = await billed.compared()
    assert (compared.subscriptions, compared.complaints, compared.notes) == (1, [], [])


async def _on_own_price(billed: Billed, amount: str) -> None:
    """From now on the subscription is on a plan whose standard charge prices each token."""
    metric = (await billed.lago.get(f"/billable_metrics/{METRIC}")).json()["billable_metric"]["lago_id"]
    charge = {"billable_metric_id": metric, "charge_model": "standard", "properties": {"amount": amount}}
    await billed.lago.plan("own", 100, charges=[charge])
    await billed.lago.subscribe("sub", "org", "own")


@pytest.mark.parametrize("month_over", [False, True])
@pytest.mark.parametrize(
    ("amount", "account", "words"),
    [
        ("0", "org:org", "(standard), Lago counts 0 cents for events of 31 cents"),
        ("0", "user:ada", "(standard), Lago counts 0 cents for events of 31 cents"),
        ("0.01", "", "(standard), Lago counts 1 cents for events of 31 cents"),
    ],
)
async def test_a_plan_with_a_price_of_its_own_is_not_compared_with_the_cents_of_the_events(
    billed: Billed, amount: str, account: str, words: str, month_over: bool
) -> None:
    """Earlier the plan of docs/credits.md was a difference every night: Lago counts nothing on it."""
    if account:
        await give(billed.url, account, "10")
    billed.clock.now = seconds("2026-11-25T00:00:00Z")
    await _on_own_price(billed, amount)
    if month_over:
        billed.clock.now = seconds("2026-11-26T00:00:00Z")
        await billed.deliver(9, "2026-11-26T00:00:00Z", "7")
        billed.clock.now = seconds("2026-12-02T00:00:00Z")
        await billed.invoiced()
    billed.clock.now += 10
    await billed.deliver(11, f"2026-{'12-02' if month_over else '11-25'}T00:00:01Z", "31")
    compared = await billed.compared()
    assert (compared.subscriptions, compared.not_compared, compared.complaints) == (0, 1, [])
    (note,) = compared.notes
    assert words in note and "besides" not in note


async def test_usage_that_nobody_pays_for_is_a_difference(billed: Billed) -> None:
    billed.clock.now = seconds("2026-11-25T00:00:00Z")
    await _on_own_price(billed, "0")
    billed.clock.now += 10
    await billed.deliver(9, "2026-11-25T00:00:01Z", "31")
    (complaint,) = (await billed.compared()).complaints
    assert "for events of 31 cents, and nobody pays by credits" in complaint


@pytest.mark.parametrize("price", ["0.000", "0.02"])
@pytest.mark.parametrize("posted", [True, False])
@pytest.mark.parametrize("filtered", [True, False])
async def test_usage_within_a_free_tier_is_no_difference(
    billed: Billed, monkeypatch: pytest.MonkeyPatch, price: str, *, posted: bool, filtered: bool
) -> None:
    """It was one every night until the tier was used up. Lago must have the events, and a tier must have a price."""
    free = {"from_value": 0, "to_value": 1000, "per_unit_amount": "0", "flat_amount": "0"}
    tiers = {"graduated_ranges": [free, {**free, "from_value": 1001, "to_value": None, "per_unit_amount": price}]}
    prices: dict[str, Any] = {"filters": [{"properties": tiers}]} if filtered else {"properties": tiers}

    async def plan(_: object, code: str) -> Plan:
        return Plan(code, "USD", (Charge(METRIC, "graduated", **prices),))

    billed.clock.now = seconds("2026-11-25T00:00:00Z")
    await _on_own_price(billed, "0")  # the sandbox has no tiers
    monkeypatch.setattr(LagoClient, "plan", plan)
    billed.clock.now += 10
    await billed.deliver(9, "2026-11-25T00:00:01Z", "31", posted=posted)
    complaints = (await billed.compared()).complaints
    assert len(complaints) == (0 if posted and price == "0.02" else 1)


@pytest.mark.parametrize("since_us", [0, parse_us("2099-01-01T00:00:00Z")])
async def test_an_org_that_pays_by_credits_and_by_invoice_is_named(billed: Billed, since_us: int) -> None:
    """In the running period, by the clock of the database; an invoice of less than half a cent is none."""
    await give(billed.url, "org:org", "10")
    await prepaid_since(billed.url, "2026-11-01Z")
    async with Writer(billed.url) as writer:
        await writer.put(TOPICS.enriched, usage(1, org_id="org", cost_usd=Decimal("1.45")))
    twice, none = (LagoUsage("sub", since_us, MAX_US, Decimal(cents), 1) for cents in ("145", "0.4"))
    with Database(billed.url, size=1) as database:
        prices = PlanPrices(database, LagoClient(billed.lago.http, billed.lago.url, KEY), METRIC)
        besides = await prices.paid_besides(twice, "org"), await prices.paid_besides(none, "org")
        own = await prices.looked_at(twice, Decimal(31), "standard", "org")
    assert ["have paid 1.45 USD" in one for one in (*besides, own.note)] == [not since_us, False, not since_us]
    assert own.complaint == ""
