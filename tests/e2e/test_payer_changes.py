"""The payer changes every second, and every cent is billed to the right org.

Only the end time of a call decides on which side of a change it is, not its arrival.
"""

import asyncio
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.deployment import PLANS, Deployment, deployment, furnish
from tests.support.eventually import within
from tests.support.kafka import Kafka

RATE, SECONDS, STEP_S = 200, 15, 0.05
ORGS = ("org_a", "org_b", "org_c")
MOVED, CHANGED = "moved", "changed"


async def until(so: Callable[[], Awaitable[bool]], limit_s: float) -> None:
    async with within(limit_s):
        while not await so():
            await asyncio.sleep(0.1)


async def load(here: Deployment, boundaries: list[float], random: Random) -> None:
    """Calls of both customers at a steady rate, some late, and some that end exactly at a change, or a millisecond
    before it.
    """
    begun, step = time.time(), int(RATE * STEP_S)
    async with asyncio.TaskGroup() as group:
        for number in range(int(SECONDS / STEP_S)):
            await asyncio.sleep(max(0.0, begun + number * STEP_S - time.time()))
            now, calls = time.time(), list[tuple[str, float, Decimal]]()
            passed = [edge for edge in boundaries if edge <= now]
            for place in range(step):
                end = now - random.choice((0.0, 0.0, 0.0, random.uniform(0, 4)))
                if passed and place < 2:
                    end = random.choice(passed[-3:]) - place * 0.001
                cost = Decimal(random.randrange(1, 10**6)).scaleb(-9)
                calls.append(((MOVED, CHANGED)[place % 2 if place >= 2 else 0], end, cost))
            group.create_task(here.post(calls))


async def every_second(act: Callable[[int], Awaitable[None]]) -> None:
    begun = time.monotonic()
    for number in range(SECONDS):
        await asyncio.sleep(max(0.0, begun + number - time.monotonic()))
        await act(number)


async def disturb(here: Deployment, seed: int) -> tuple[list[tuple[float, str]], list[float]]:
    """Change one customer's org and another's plan every second, under load.

    Returns:
        The mappings as (from when on, org), the first one since ever, and the moments the plan changed.
    """
    first = await here.map(MOVED, ORGS[0])
    assert first["subscription"] == f"sub_{ORGS[0]}"
    await here.map(CHANGED, "org_plan")
    mapped, planned, edges = [(0.0, ORGS[0])], list[float](), list[float]()

    async def move(number: int) -> None:
        org = ORGS[(number + 1) % len(ORGS)]
        result = await here.map(MOVED, org)
        mapped.append((datetime.fromisoformat(result["effective_from"]).timestamp(), org))
        edges.append(mapped[-1][0])

    async def change(number: int) -> None:
        running = await here.billing.subscribe("org_plan", PLANS[(number + 1) % 2], "anniversary", None)
        assert running.plan_code == PLANS[(number + 1) % 2]
        assert running.started_at is not None
        planned.append(datetime.fromisoformat(running.started_at).timestamp())

    await asyncio.gather(load(here, edges, Random(seed)), every_second(move), every_second(change))
    assert len(set(edges)) > SECONDS / 2, "a busy machine: changes fell together"
    return mapped, planned


def check_orgs(here: Deployment, mapped: list[tuple[float, str]], stats: dict[str, Any]) -> None:
    """Each org is billed exactly the calls that ended while it was the payer."""
    owed: Counter[str] = Counter()
    # Of two changes within the same second the later one applies.
    last = dict(mapped)
    for org, cents in zip(last.values(), here.owed(MOVED, list(last)[1:]), strict=True):
        owed[org] += cents  # type: ignore[assignment]
    billed = {org: Decimal(stats["subscriptions"].get(f"sub_{org}", {"cents": "0"})["cents"]) for org in ORGS}
    assert billed == {org: owed[org] for org in ORGS}


@pytest.mark.faults
@pytest.mark.parametrize("window_s", [0, 5])
async def test_no_cent_is_billed_on_the_wrong_side_of_a_change(
    kafka: Kafka, topic_prefix: str, tmp_path: Path, window_s: int
) -> None:
    """A plan's change is Lago's: it divides events by their time. Where an event is a call that is the call's end;
    a window's event falls whole on one side, so there the sides are the orgs' alone.

    A change of plan invoices the old one at once. What arrives after it and is known to be late is moved to the new
    plan, its true end in `usage_end`; what was on its way already, Lago's sandbox does not bill.
    """
    async with deployment(kafka.bootstrap, topic_prefix, tmp_path, window_s) as here:
        await furnish(here.lago, [*ORGS, "org_plan"])
        mapped, planned = await disturb(here, seed=window_s)

        async def all_arrived() -> bool:
            return bool((await here.stats())["totals"]["calls"] >= here.sent)

        await until(all_arrived, 60)
        stats, events = await here.stats(), await here.events()
    check_orgs(here, mapped, stats)
    totals, plan = stats["totals"], stats["subscriptions"]["sub_org_plan"]
    assert totals["calls"] == here.sent
    assert Decimal(totals["cents"]) == sum(here.costs.values()) * 100
    others = [Decimal(totals[name]) - Decimal(plan[name]) for name in ("cents", "billed_cents")]
    assert others[0] == others[1]
    assert Decimal(plan["cents"]) == sum(here.owed(CHANGED, []))
    if window_s == 0:
        assert len(events) == here.sent, "each call is an event of its own"
        sides = [Decimal(0)] * (len(planned) + 1)
        for event in events:
            if event["external_subscription_id"] == "sub_org_plan":
                ended = event["properties"].get("usage_end") or event["timestamp"]
                at = datetime.fromisoformat(ended).timestamp()
                sides[bisect_right(planned, at)] += Decimal(event["precise_total_amount_cents"])
        assert sides == here.owed(CHANGED, planned)
    print(f"{here.sent} calls, {len(mapped)} mappings, {len(planned)} plans, {totals['cents']} cents: each on its side")
