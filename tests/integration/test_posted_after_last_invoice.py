"""Usage from before an end in Lago that reached Lago after the last invoice was counted is billed again exactly once."""

import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from connectors.config.deployment import Deployment
from connectors.lago.client import LagoClient, LagoUnavailable
from connectors.lago.responses import Invoice
from connectors.operations import automatic_rebilling, delivered
from connectors.operations.rebilling import Rebilling
from connectors.postgres.pool import Database
from schemas.customers import Period
from schemas.errors import Unavailable
from schemas.moments import HOUR_US
from schemas.policy import OutOfPeriodPolicy
from tests.support.database import until
from tests.support.ended_world import REBILLED, World, ended_world, lago_with_sub_a
from tests.support.sandbox import Lago, lago_sandbox
from tests.support.stage import Stage

DELAY_S = 600.0


class Ahead:
    """Lago's clock."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.by_s


@pytest.fixture
def ahead() -> Ahead:
    return Ahead()


@pytest.fixture
async def lago(request: pytest.FixtureRequest, ahead: Ahead) -> AsyncIterator[Lago]:
    async with lago_with_sub_a(clock=ahead, invoice_delay_s=getattr(request, "param", 0.0)) as sandbox:
        yield sandbox


@pytest.fixture
async def world(stage: Stage, database: str, lago: Lago) -> AsyncIterator[World]:
    async with ended_world(stage, database, lago) as running:
        yield running


async def learn(world: World) -> None:
    """Record the end, and that sub-b has started."""
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end(Period("sub-b", time.time_ns() // 1000))


async def test_usage_that_lago_accepted_after_its_last_invoice_is_billed_again_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read a row at a time.

    sub-a  ----------| its invoice: 2 cents     learnt ^   sub-b  |------------
                 u u     u u reach Lago                             u u (u u u)
                         (u u u happen)
    """
    monkeypatch.setattr(delivered, "ROWS", 1)
    monkeypatch.setattr(delivered, "PAGE", 1)
    await world.overtaken(range(5, 7))
    await learn(world)
    await world.task().once()
    await world.billed_cents(7)
    await until(world.url, REBILLED, lambda count: count == 5)
    again, before = world.task(), dict(world.reported.outcomes)
    await again.once()
    assert (world.reported.outcomes, world.reported.waits) == (before, (0, Decimal(0)))
    asked = len(world.asked)
    await again.once()
    assert len(world.asked) == asked
    await world.billed_cents(7)
    assert (await world.command("reconcile", "--lago")).json["complaints"] == []


async def test_with_the_policy_hold_it_is_reported_and_the_command_does_the_same(world: World) -> None:
    await world.overtaken(range(5, 7))
    await learn(world)
    await world.task(late=OutOfPeriodPolicy.HOLD).once()
    assert (world.reported.waits[1], world.reported.outcomes) == (Decimal("0.05"), {})
    seen = await world.command("lago", "rebill", "--dry-run")
    assert (seen.code, {(one["on"], one["unclear"]) for one in seen.json}) == (0, {("sub-b", None)}), seen.err
    await world.billed_cents(2)
    done = await world.command("lago", "rebill", "--comment", "it came late")
    assert (done.code, done.json) == (0, seen.json), done.err
    await world.billed_cents(7)
    await until(world.url, REBILLED, lambda count: count == 5)
    assert (await world.command("lago", "rebill")).json == []
    await world.billed_cents(7)


@pytest.mark.parametrize("lago", [DELAY_S], indirect=True)
async def test_usage_that_the_last_invoice_will_count_is_waited_for_and_not_billed_again(
    world: World, ahead: Ahead
) -> None:
    """The invoice is created ten minutes after the end."""
    await world.overtaken(range(5, 7))
    await learn(world)
    task = world.task()
    await task.once()
    await world.billed_cents(7)
    await until(world.url, REBILLED, lambda count: count == 3)
    ahead.by_s, before = DELAY_S, dict(world.reported.outcomes)
    await task.once()
    assert (world.reported.waits, world.reported.outcomes) == ((0, Decimal(0)), before)
    asked = len(world.asked)
    await task.once()
    assert len(world.asked) == asked
    await world.billed_cents(7)
    assert (await world.command("reconcile", "--lago")).json["complaints"] == []


@pytest.mark.parametrize("lago", [DELAY_S], indirect=True)
async def test_the_last_invoice_may_contain_a_part_of_the_usage_after_the_end(world: World, ahead: Ahead) -> None:
    """
    sub-a  ----------|   invoice: 4 cents ^
                 u u     u u                u
    """
    await world.overtaken(range(5, 7))
    ahead.by_s = DELAY_S
    await world.overtaken(range(7, 8))
    await learn(world)
    await world.task().once()
    await world.billed_cents(8)
    await until(world.url, REBILLED, lambda count: count == 4)
    assert (await world.command("reconcile", "--lago")).json["complaints"] == []


async def _grouped(lago: Lago) -> None:
    """A plan with a fee for each model."""
    metric = await lago.metric("ai_usage")
    by_model = {"properties": {"pricing_group_keys": ["model"]}}
    await lago.plan("grouped", charges=[{"billable_metric_id": metric, "charge_model": "dynamic", **by_model}])


async def test_usage_that_the_last_invoice_does_not_show_is_reported_and_not_billed(
    stage: Stage, database: str
) -> None:
    """Its fees are for groups of events, by a property."""
    async with lago_sandbox(clock=time.time) as lago:
        await _grouped(lago)
        await lago.usage_plan()
        await lago.subscribe("sub-a", "org-a", plan="grouped", subscription_at="2026-01-01T00:00:00Z")
        async with ended_world(stage, database, lago) as world:
            await world.overtaken(range(5, 7))
            await learn(world)
            await world.task().once()
            await world.billed_cents(5)
            await until(world.url, REBILLED, lambda count: count == 3)
            assert world.reported.waits[1] == Decimal("0.02")
            named = await world.command("lago", "rebill")
            assert (named.code, {(one["on"], one["unclear"]) for one in named.json}) == (1, {(None, "maybe_invoiced")})
            [complaint] = (await world.command("reconcile", "--lago")).json["complaints"]
            assert "of 0.02 USD may be on it or not (maybe_invoiced)" in complaint
            await world.billed_cents(5)
            assert (await world.command("lago", "rebill", "--also-unclear")).code == 2
            of_another = await world.command("lago", "rebill", "--org", "org-z", "--also-unclear")
            assert of_another.code == 1 and "--org: no org 'org-z' is known" in of_another.err
            await world.billed_cents(5)
            looked_at = ("--org", "org-a", "--also-unclear", "--comment", "it is not on the invoice")
            done = await world.command("lago", "rebill", *looked_at)
            assert (done.code, {(one["on"], one["unclear"]) for one in done.json}) == (0, {("sub-b", None)}), done.err
            await world.billed_cents(7)
            await until(world.url, REBILLED, lambda count: count == 5)
            await world.task().once()
            assert world.reported.waits == (0, Decimal(0))


class KilledProcess(Rebilling):
    """A process that is killed when it has billed again the usage after the end: before or after its second transaction
    is durable.
    """

    def __init__(self, deployment: Deployment, database: Database, *, durable: bool) -> None:
        super().__init__(deployment, database)
        self._durable = durable
        self._second = False

    async def bill(self, lost: Any) -> None:
        if self._durable or not self._second:
            await super().bill(lost)
        if self._second:
            raise Unavailable("killed", "")
        self._second = True


@pytest.mark.parametrize("durable", [True, False])
async def test_after_a_kill_in_between_it_is_billed_once(world: World, durable: bool) -> None:
    await world.overtaken(range(5, 7))
    await learn(world)
    with pytest.raises(Unavailable, match="killed"):
        await world.task(lambda *of: KilledProcess(*of, durable=durable)).once()
    await until(world.url, REBILLED, lambda count: count == (5 if durable else 3))
    complaints = (await world.command("reconcile", "--lago")).json["complaints"]
    if not durable:
        [complaint] = complaints
        assert "its last invoice counts 2 cents" in complaint
        assert "of 0.02 USD came after it had been counted: meterbridge lago rebill" in complaint
    await world.task().once()
    await world.billed_cents(7)
    await until(world.url, REBILLED, lambda count: count == 5)


async def test_a_process_that_asked_lago_before_another_billed_it_again_bills_nothing(world: World) -> None:
    await world.overtaken(range(5, 7))
    await learn(world)

    class Late(Rebilling):
        async def __aenter__(self) -> Any:
            await world.task().once()
            await world.billed_cents(7)
            return await super().__aenter__()

    await world.task(Late).once()
    await world.billed_cents(7)
    await until(world.url, REBILLED, lambda count: count == 5)


async def test_without_the_right_to_read_invoices_usage_after_an_end_is_still_billed(world: World) -> None:
    class NoInvoices(LagoClient):
        async def invoices(self, *_: Any, **__: Any) -> list[Invoice]:
            raise LagoUnavailable("http_403", "read_action_not_allowed_for_invoice", status=403)

    await world.overtaken(range(5, 7))
    await learn(world)
    world.client.__class__ = NoInvoices
    await world.task().once()
    await world.billed_cents(5)
    await until(world.url, REBILLED, lambda count: count == 3)


async def test_undecided_usage_is_given_up_visibly(
    stage: Stage, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the end is 40 days old."""
    async with lago_sandbox(clock=time.time) as lago:
        await _grouped(lago)
        await lago.usage_plan()
        await lago.subscribe("sub-a", "org-a", plan="grouped", subscription_at="2026-01-01T00:00:00Z")
        async with ended_world(stage, database, lago) as world:
            await world.overtaken(range(5, 7))
            await learn(world)
            task = world.task()
            await task.once()
            events, usd = world.reported.waits
            assert (usd, "given_up" in world.reported.outcomes) == (Decimal("0.02"), False)
            monkeypatch.setattr(automatic_rebilling, "ENDED_US", 0)
            await task.once()
            assert (world.reported.waits, world.reported.outcomes["given_up"]) == ((0, Decimal(0)), events)


async def test_after_an_end_without_an_invoice_the_whole_last_period_is_reported_and_billed_only_by_command(
    stage: Stage, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    sub-a  ----------| ended with `skip`      an hour later ^   sub-b  |-----
                 u u     u u u                 named: the first two     u u u
    """
    async with (
        lago_with_sub_a() as lago,
        ended_world(stage, database, lago, invoiced=False) as world,
    ):
        await learn(world)
        task = world.task()
        await task.once()
        await world.billed_cents(3)
        await until(world.url, REBILLED, lambda count: count == 3)
        assert world.reported.waits == (0, Decimal(0))
        later_us = time.time_ns() // 1000 + 2 * HOUR_US
        monkeypatch.setattr(automatic_rebilling, "now_us", lambda: later_us)
        await task.once()
        assert world.reported.waits[1] == Decimal("0.02")
        [waiting] = [one.waiting for one in task._looked.values()]
        assert waiting.why == "no_last_invoice"
        await world.billed_cents(3)


async def test_for_an_id_with_another_period_the_comparison_reports_what_the_last_one_left(
    stage: Stage, database: str
) -> None:
    """
    sub-a  ----------| its invoice does not say     sub-a  |-----
    """
    async with lago_sandbox(clock=time.time) as lago:
        await _grouped(lago)
        await lago.usage_plan()
        await lago.subscribe("sub-a", "org-a", plan="grouped", subscription_at="2026-01-01T00:00:00Z")
        async with ended_world(stage, database, lago) as world:
            await world.overtaken(range(5, 7))
            await lago.subscribe("sub-a", "org-a")
            await world.learn_of_the_end(Period("sub-a", time.time_ns() // 1000))
            await world.task().once()
            [complaint] = (await world.command("reconcile", "--lago")).json["complaints"]
            assert "of 0.02 USD may be on it or not (maybe_invoiced)" in complaint
