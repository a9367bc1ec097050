"""A Lago with plans, and everything that is kept when the processes that bill orgs in it end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_billing import OrgBilling
from connectors.billing.subscription_id_store import InMemoryIds
from connectors.library import orgs
from schemas.moments import SECOND_US
from tests.support.mortal_wire import MortalWire
from tests.support.sandbox import Clock, Lago, lago_sandbox


@dataclass
class World:
    """A Lago with plans, and everything that is kept when a process ends: the ids and the recorded usage."""

    lago: Lago
    clock: Clock
    ids: InMemoryIds
    usage: InMemoryUsage
    ticks: float = 0.0
    wires: list[MortalWire] = field(default_factory=list)

    def process(self, wire: MortalWire | None = None, **options: Any) -> OrgBilling:
        """Return a new process' billing, which the module now works on."""
        self.wires.append(wire or MortalWire())
        billing = OrgBilling(
            self.wires[-1].client(self.lago.url),
            self.ids,
            self.usage,
            now_us=lambda: round(self.clock.now * SECOND_US),
            clock=lambda: self.ticks,
            **options,
        )
        orgs.serve_with(billing)
        return billing

    async def everything(self) -> tuple[list[str], list[tuple[str, str, str]]]:
        """Customers, and subscriptions of every state as (customer, plan, state)."""
        customers = (await self.lago.get("/customers")).json()["customers"]
        states = ["active", "pending", "terminated", "canceled"]
        listed = (await self.lago.get("/subscriptions", **{"status[]": states})).json()["subscriptions"]
        result = sorted((one["external_customer_id"], one["plan_code"], one["status"]) for one in listed)
        return sorted(one["external_id"] for one in customers), result


@asynccontextmanager
async def orgs_world() -> AsyncIterator[World]:
    """Yield a world with a first process, on an empty Lago."""
    clock = Clock()
    async with lago_sandbox(clock=clock) as lago:
        await lago.plan("founders_friend", 0)
        await lago.plan("starter", 1900)
        await lago.plan("professional", 4900)
        world = World(lago, clock, InMemoryIds(), InMemoryUsage())
        world.process()
        yield world
        for wire in world.wires:
            await wire.aclose()
    orgs.serve_with(None)
