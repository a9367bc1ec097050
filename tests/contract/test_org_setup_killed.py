"""Setup killed at each of its steps: requests to Lago, audit line, org's record. After a second run there is one of
each.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_accounts import Account, OrgAccounts, OrgRequest
from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_records import StoredIds
from schemas.customers import OrgRecord
from schemas.moments import SECOND_US
from tests.support.mortal_wire import Killed, MortalWire
from tests.support.org_api import InMemoryRecords
from tests.support.sandbox import Clock, Lago, lago_sandbox


class MortalRecords(InMemoryRecords):
    """Dies at the n-th change, before or after it is stored."""

    def __init__(self, stored: dict[str, OrgRecord], dies_at: int | None, *, sent: bool) -> None:
        super().__init__()
        self.all = stored
        self.changes = 0
        self._dies_at = dies_at
        self._sent = sent

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        self.changes += 1
        fatal = self.changes == self._dies_at
        if fatal and not self._sent:
            raise Killed
        created = await super().change(org_id, make)
        if fatal:
            raise Killed
        return created


@dataclass
class World:
    """A Lago, and everything that is kept when a process ends."""

    lago: Lago
    clock: Clock
    records: dict[str, OrgRecord] = field(default_factory=dict)
    audit: list[tuple[Any, Any]] = field(default_factory=list)
    wires: list[MortalWire] = field(default_factory=list)

    async def set_up(
        self, org: str, wire: MortalWire | None = None, records: MortalRecords | None = None, audit_dies: str = ""
    ) -> Account:
        """Run in a process of its own."""
        self.wires.append(wire or MortalWire())
        records = records or MortalRecords(self.records, None, sent=False)

        def now_us() -> int:
            return round(self.clock.now * SECOND_US)

        async def changing(before: Any, after: Any) -> None:
            if audit_dies == "before":
                raise Killed
            self.audit.append((before, after))
            if audit_dies == "after":
                raise Killed

        billing = OrgBilling(
            self.wires[-1].client(self.lago.url),
            StoredIds(records),  # type: ignore[arg-type]
            InMemoryUsage(),
            now_us=now_us,
        )
        wanted = OrgRequest(org, "Acme", "a@acme.io", "user_1", "starter")
        return await OrgAccounts(billing, records, now_us).set_up(wanted, changing)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = Clock()
    async with lago_sandbox(clock=clock) as lago:
        await lago.plan("starter", 1900)
        world = World(lago, clock)
        yield world
        for wire in world.wires:
            await wire.aclose()


async def test_after_a_kill_at_any_step_a_second_run_leaves_one_customer_with_one_subscription(world: World) -> None:
    """The clock is later each time, so an id generated a second time would be different."""
    untouched, whole = MortalWire(), MortalRecords(world.records, None, sent=False)
    await world.set_up("org_0", untouched, whole)
    assert (len(untouched.requests), whole.changes) == (11, 2)
    fates: list[dict[str, Any]] = [{"audit_dies": word} for word in ("before", "after")]
    for sent in (False, True):
        steps = range(1, len(untouched.requests) + 1)
        fates += [{"wire": MortalWire(step, sent=sent)} for step in steps]
        fates += [{"records": MortalRecords(world.records, step, sent=sent)} for step in (1, 2)]
    for number, fate in enumerate(fates, start=1):
        org = f"org_{number}"
        with pytest.raises(Killed):
            await world.set_up(org, **fate)
        world.clock.now += 60
        created = await world.set_up(org)
        assert created.subscription is not None
        record = world.records[org]
        assert record.subscription_id == created.subscription.external_id
        assert [one.external_id for one in record.periods] == [record.subscription_id]
        assert (record.name, record.email, record.plan, record.currency) == ("Acme", "a@acme.io", "starter", "USD")
    everybody = sorted(f"org_{number}" for number in range(len(fates) + 1))
    customers = (await world.lago.get("/customers", per_page=500)).json()["customers"]
    assert sorted(one["external_id"] for one in customers) == everybody
    subscriptions = (await world.lago.get("/subscriptions", per_page=500)).json()["subscriptions"]
    assert sorted(one["external_customer_id"] for one in subscriptions) == everybody
    assert sorted(world.records) == everybody


async def test_nothing_is_created_before_it_is_in_the_audit_log(world: World) -> None:
    with pytest.raises(Killed):
        await world.set_up("org_1", audit_dies="before")
    assert {method for method, _ in world.wires[-1].requests} == {"GET"}
    assert (await world.lago.get("/customers")).json()["customers"] == []
    assert world.records == {}
