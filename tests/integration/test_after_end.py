"""A subscription that ended in Lago without a notice: events posted after its end are found, reported, and billed again
exactly once.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from connectors.config.deployment import Deployment
from connectors.operations.after_end import LagoHistory
from connectors.operations.rebilling import Rebilling
from connectors.postgres.pool import Database
from schemas.customers import OrgRecord, Period
from schemas.errors import Unavailable
from schemas.moments import SECOND_US, parse_us, to_iso
from schemas.policy import OutOfPeriodPolicy
from streams.core.delivery.after_end import gaps
from tests.support.calls import raw, slp
from tests.support.database import rows, until
from tests.support.ended_world import COMPLETED, FAILED, REBILLED, World, ended_world, lago_with_sub_a
from tests.support.eventually import soon
from tests.support.sandbox import Lago
from tests.support.stage import Stage


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_with_sub_a() as sandbox:
        yield sandbox


@pytest.fixture
async def world(stage: Stage, database: str, lago: Lago) -> AsyncIterator[World]:
    async with ended_world(stage, database, lago) as running:
        yield running


async def test_an_event_posted_after_an_end_is_billed_again_once(world: World) -> None:
    """By an operator's command: first no subscription can bill it, then sub-b can."""
    [complaint] = (await world.command("reconcile", "--lago")).json["complaints"]
    assert "3 cents were delivered to it with a moment after its end" in complaint
    nowhere = await world.command("lago", "rebill", "--dry-run")
    assert (nowhere.code, {one["on"] for one in nowhere.json}) == (1, {None}), nowhere.err
    await world.lago.subscribe("sub-b", "org-a")
    done = await world.command("lago", "rebill", "--comment", "it had ended")
    assert (done.code, {one["on"] for one in done.json}) == (0, {"sub-b"}), done.err
    await until(world.url, FAILED, lambda count: count == len(done.json))
    await until(world.url, COMPLETED, lambda count: count == 5)
    unknown = await world.command("lago", "rebill", "--org", "org-aa")
    assert unknown.code == 1 and "--org: no org 'org-aa' is known" in unknown.err
    again = await world.command("lago", "rebill")
    assert (again.code, again.json) == (0, []), again.err
    await world.billed_cents(5)
    assert (await world.command("reconcile", "--lago")).json["complaints"] == []
    query = "SELECT action, reason, cost_usd FROM audit_log WHERE action = 'lago.rebill'"
    [(action, reason, cost)] = await rows(world.url, query)
    assert (action, reason, str(cost)) == ("lago.rebill", "it had ended", "0.03")


async def test_an_end_that_is_noticed_late_is_repaired_without_a_command(world: World) -> None:
    """
    sub-a  ----------|                     sub-b  |--------
                         u u u  learnt ^            u u u
    """
    task = world.task()
    await task.once()
    assert world.asked == []
    await world.learn_of_the_end()
    await task.once()
    assert world.reported.waits[1] == Decimal("0.03")
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end(Period("sub-b", time.time_ns() // 1000))
    watching = asyncio.ensure_future(task.watch())
    try:
        await world.billed_cents(5)
        await until(world.url, COMPLETED, lambda count: count == 5)
    finally:
        watching.cancel()
    await task.once()
    await world.billed_cents(5)
    assert (world.reported.waits, list(world.reported.outcomes)) == ((0, Decimal(0)), ["rebilled"])
    assert (await world.command("reconcile", "--lago")).json["complaints"] == []
    query = "SELECT actor, cost_usd FROM audit_log WHERE action = 'lago.rebill'"
    assert sum(cost for _, cost in await rows(world.url, query)) == Decimal("0.03")


async def test_usage_that_another_customer_with_the_same_id_was_invoiced_for_is_billed_again_only_by_command(
    world: World,
) -> None:
    """
    sub-a  ----------|--------------------   the id is org-b's now
             org-a       u u u    org-b       so they are on org-b's invoice

    Of one usage two invoices would be made; the money of org-b is to be given back first.
    """
    await world.lago.subscribe("sub-a", "org-b", subscription_at=to_iso(world.ended_us))
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end(Period("sub-b", time.time_ns() // 1000))
    world.stage.map("globex", "org-b", "sub-a")
    world.stage.put([raw(0, slp(9, at_us=time.time_ns() // 1000, cost="0.01"), customer="globex")])
    await until(world.url, COMPLETED, lambda count: count == 6)
    await world.task().once()
    assert (world.reported.waits, world.reported.outcomes) == ((await world.events(), Decimal("0.03")), {})
    await world.billed_cents(6)
    [complaint] = (await world.command("reconcile", "--lago")).json["complaints"]
    assert "3 cents were delivered to it with a moment after its end" in complaint
    seen = await world.command("lago", "rebill")
    assert (seen.code, {(one["on"], one["taken_by"]) for one in seen.json}) == (1, {(None, "org-b")}), seen.err
    await world.billed_cents(6)
    done = await world.command(
        "lago", "rebill", "--org", "org-a", "--also-taken", "--comment", "org-b has a credit note"
    )
    assert (done.code, {one["on"] for one in done.json}) == (0, {"sub-b"}), done.err
    await world.billed_cents(9)
    await until(world.url, FAILED, lambda count: count == len(done.json))
    await world.task().once()
    assert world.reported.waits == (0, Decimal(0))


async def test_another_customers_own_usage_on_a_reused_id_is_not_reported(world: World) -> None:
    """Its calls are also in the gap of the customer that had the id before."""
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end(Period("sub-b", time.time_ns() // 1000))
    await world.task().once()
    await until(world.url, REBILLED, lambda count: count == 3)
    await world.lago.subscribe("sub-a", "org-b")
    world.stage.map("globex", "org-b", "sub-a")
    world.stage.put([raw(0, slp(9, at_us=time.time_ns() // 1000, cost="0.01"), customer="globex")])
    await until(world.url, COMPLETED, lambda count: count == 6)
    await world.task().once()
    assert world.reported.waits == (0, Decimal(0))
    assert (await world.command("reconcile", "--lago")).json["complaints"] == []


async def test_explain_shows_the_event_and_its_replacement_and_verifies_both(world: World) -> None:
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end()
    await world.task().once()
    await until(world.url, REBILLED, lambda count: count == 3)
    query = "SELECT transaction_id FROM lago_events WHERE reason = 'unbillable_ended' ORDER BY 1"
    old = (await rows(world.url, query))[0][0]
    first, second = [await world.command("explain", name) for name in (old, f"{old}-again")]
    assert (first.code, second.code) == (0, 0), first.out
    assert (first.json["status"], first.json["reason"]) == ("failed", "unbillable_ended")
    again = first.json["again"]
    assert (again["transaction_id"], again["status"], again["proved"]) == (f"{old}-again", "completed", True)
    assert again["external_subscription_id"] == "sub-b"
    assert (second.json["instead_of"], second.json["again"]) == (old, None)
    assert second.json["lines"] == first.json["lines"] != []
    assert second.json["proved"] and second.json["calls"] == len(second.json["lines"])
    call = first.json["lines"][0]["request_id"]
    [found] = (await world.command("explain", "--request", call)).json["calls"]
    assert (found["event"]["transaction_id"], found["event"]["again"]) == (old, again)
    asked = await world.command("explain", "--customer", "acme", "--at", first.json["lines"][0]["ended_at"])
    assert {one["event"] for one in asked.json["calls"]} >= {f"{old}-again"}
    assert old not in {one["event"] for one in asked.json["calls"]}
    await rows(world.url, "UPDATE usage_parts SET amount_cents = amount_cents + 1 WHERE part = $1", f"{old}-again")
    assert ((await world.command("explain", old)).code, (await world.command("explain", f"{old}-again")).code) == (1, 1)


async def test_lago_is_asked_only_about_orgs_with_events_after_an_end(world: World) -> None:
    """sub-z has ended too, but no event was posted to it."""
    await world.learn(Period("sub-a", 0), Period("sub-z", 0, world.ended_us))
    await world.task().once()
    assert world.asked == []
    await world.learn_of_the_end()
    await world.task().once()
    assert set(world.asked) == {"subscriptions", "customer", "plan", "invoices", "invoice", "events"}


@pytest.mark.parametrize("other", ["sub-a", "sub-b"])
async def test_an_end_that_the_record_has_too_late_is_repaired_with_one_request_to_lago(
    world: World, other: str
) -> None:
    """
    sub-a  ----------| in Lago     other  |--------
    sub-a  -----------------------------|           in the record: learnt when the other one was made
                         u u u
    """
    await world.lago.subscribe(other, "org-a")
    now_us = time.time_ns() // 1000
    await world.learn(Period("sub-a", 0, now_us), Period(other, now_us))
    task = world.task()
    await task.once()
    await world.billed_cents(5)
    await until(world.url, REBILLED, lambda count: count == 3)
    asked = len(world.asked)
    await task.once()
    assert (len(world.asked), world.reported.waits) == (asked, (0, Decimal(0)))


async def test_an_org_is_checked_when_its_record_changes_and_otherwise_less_and_less_often(world: World) -> None:
    now = 0.0
    task = world.task(monotonic=lambda: now)
    await world.learn_of_the_end()
    looks = []
    for minute in range(140):
        now, before = 60.0 * minute, len(world.asked)
        await task.once()
        looks += [minute] if len(world.asked) > before else []
    assert looks == [0, 1, 3, 7, 15, 31, 63, 123]
    await world.learn_of_the_end()
    before = len(world.asked)
    await task.once()
    assert len(world.asked) > before


async def test_an_end_that_lago_does_not_confirm_is_ignored(world: World) -> None:
    """The record is wrong, or older than Lago: sub-a started again before the calls came."""
    await world.lago.subscribe("sub-a", "org-a", subscription_at="2026-01-01T00:00:00Z")
    await world.learn_of_the_end()
    await world.task().once()
    assert (world.reported.waits, world.reported.outcomes) == ((0, Decimal(0)), {})


@pytest.mark.parametrize("late", [OutOfPeriodPolicy.HOLD, None])
async def test_an_event_that_must_not_be_posted_automatically_is_reported(
    world: World, late: OutOfPeriodPolicy | None
) -> None:
    """With OUT_OF_PERIOD_POLICY=hold, or because Lago cannot be asked: the command remains."""
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end(Period("sub-b", time.time_ns() // 1000))
    await world.task(**({"lago": None} if late is None else {"late": late})).once()
    assert (world.reported.waits[1], world.reported.outcomes) == (Decimal("0.03"), {})
    assert (await world.command("lago", "rebill")).code == 0
    await world.billed_cents(5)


class KilledProcess(Rebilling):
    """A process that is killed before or after its transaction is durable."""

    def __init__(self, deployment: Deployment, database: Database, *, durable: bool) -> None:
        super().__init__(deployment, database)
        self._durable = durable

    async def bill(self, lost: Any) -> None:
        if self._durable:
            await super().bill(lost)
        raise Unavailable("killed", "")


@pytest.mark.parametrize("durable", [True, False])
async def test_after_a_kill_in_between_it_is_billed_once(world: World, durable: bool) -> None:
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end()
    with pytest.raises(Unavailable, match="killed"):
        await world.task(lambda *of: KilledProcess(*of, durable=durable)).once()
    await world.task().once()
    await world.billed_cents(5)
    await until(world.url, REBILLED, lambda count: count == 3)


async def test_two_processes_and_a_person_at_the_same_time_bill_once(world: World) -> None:
    """The process that lost the partition has not noticed yet; meanwhile an operator runs the command."""
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end()
    await asyncio.gather(
        world.task().once(),
        world.task().once(),
        world.command("lago", "rebill"),
        return_exceptions=True,
    )
    await world.task().once()
    await world.billed_cents(5)


async def test_a_fenced_process_can_do_nothing_more(world: World) -> None:
    """It has read which events are lost; before it posts, another process does all of it."""
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end()

    class Slow(Rebilling):
        async def bill(self, lost: Any) -> None:
            await world.task().once()
            await super().bill(lost)

    with pytest.raises(Unavailable, match="requeue_in_progress"):
        await world.task(Slow).once()
    await world.billed_cents(5)


async def test_a_process_that_takes_over_waits_until_its_predecessors_receipts_are_projected(world: World) -> None:
    """The projector is stopped: its rows are outdated, so nothing may be billed from them."""
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end()
    await world.task().once()
    await until(world.url, REBILLED, lambda count: count == 3)
    await until(world.url, FAILED, lambda count: count > 0)
    await rows(world.url, "UPDATE usage_parts SET status = 'completed' WHERE reason = 'unbillable_ended'")
    await rows(world.url, "UPDATE projector_offsets SET next = 0 WHERE topic = $1", world.stage.topics.receipts)
    with pytest.raises(Unavailable, match="projection_behind"):
        await world.task(lambda deployment, database: Rebilling(deployment, database, 1)).once()
    await world.billed_cents(5)


async def test_an_event_lost_to_a_second_end_is_billed_a_second_time(world: World) -> None:
    """
    sub-a  ---|        sub-b  ---|            sub-c  |-----
                u u u              u' u' u'             u'' u'' u''
    """
    await world.lago.subscribe("sub-b", "org-a")
    await world.learn_of_the_end()
    answer = await world.lago.http.delete("/api/v1/subscriptions/sub-b")
    ended_us = parse_us(answer.json()["subscription"]["terminated_at"])
    # Lago was asked before sub-b ended: its copy of the truth is old by then.
    task = world.task()
    task._ends = {"": StillRuns(ended_us)}  # type: ignore[dict-item]
    await soon(lambda: time.time_ns() // 1000 > ended_us + SECOND_US)
    await task.once()
    await until(world.url, REBILLED, lambda count: count == 3)
    await world.lago.subscribe("sub-c", "org-a")
    sub_b = Period("sub-b", world.ended_us + SECOND_US, ended_us)
    await world.learn_of_the_end(sub_b, Period("sub-c", time.time_ns() // 1000))
    await world.task().once()
    await world.billed_cents(5)


class StillRuns:
    """Lago's answer from before the end of sub-b."""

    def __init__(self, ended_us: int) -> None:
        self._ended_us = ended_us

    async def of(self, org: OrgRecord, now_us: int) -> LagoHistory:
        result = gaps(org.periods, 0)
        running = Period("sub-b", self._ended_us + SECOND_US)
        return LagoHistory(OrgRecord(org.org_id, periods=(*org.periods, running)), result, [])
