"""Everything that the canary needs in Lago is created once, with the stand-in; the table of mappings is in memory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from connectors.billing.canary_setup import NOTE, CanarySetup
from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_accounts import OrgAccounts
from connectors.billing.org_billing import OrgBilling
from connectors.billing.org_records import StoredIds
from connectors.lago.client import LagoClient, lago_http
from schemas.errors import Rejected, Unavailable
from streams.core.mapping.set_mapping import MappingRequest
from streams.runtime.clock import now_us
from tests.support.org_api import InMemoryRecords
from tests.support.sandbox import KEY, Lago, lago_sandbox

NAME, ORG, CODE = "eu-canary", "org_eu-canary", "ai_usage"


@dataclass
class InMemoryMappings:
    """`Mappings`, as far as the setup needs it."""

    put_requests: list[MappingRequest] = field(default_factory=list)

    async def get(self, _customer: str) -> Any:
        if not self.put_requests:
            return None
        last = self.put_requests[-1]
        return SimpleNamespace(
            version=SimpleNamespace(is_active=last.is_active, lago_customer_id=last.lago_customer_id)
        )

    async def put(self, request: MappingRequest) -> None:
        self.put_requests.append(request)


@dataclass
class World:
    lago: Lago
    client: LagoClient
    accounts: OrgAccounts
    mappings: InMemoryMappings = field(default_factory=InMemoryMappings)
    changes: int = 0

    async def changing(self) -> None:
        self.changes += 1

    async def run(self, before: Any = None) -> list[str]:
        changing = before or self.changing
        setup = CanarySetup(self.client, self.accounts, self.mappings, CODE, NAME, ORG, changing)  # type: ignore[arg-type]
        return await setup.run()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with lago_sandbox() as lago, lago_http(5, 4) as http:
        client = LagoClient(http, lago.url, KEY)
        records: Any = InMemoryRecords()
        billing = OrgBilling(client, StoredIds(records), InMemoryUsage(), now_us=now_us)
        yield World(lago, client, OrgAccounts(billing, records, now_us))


async def test_each_missing_part_is_created_and_nothing_else(world: World) -> None:
    with pytest.raises(Rejected, match="meterbridge lago setup"):
        await world.run()
    await world.lago.metric(CODE)
    created = await world.run()
    assert [what.split()[0] for what in created] == ["plan", "org", "mapping"]
    assert world.changes == 1
    customer = await world.client.customer(ORG)
    assert customer is not None and {name: customer.note(name) for name in NOTE} == NOTE
    assert (customer.email, customer.billing_configuration and customer.billing_configuration.payment_provider) == (
        None,
        None,
    )
    [subscription] = await world.client.subscriptions(ORG)
    assert subscription.plan_code == NAME
    assert await world.run() == []
    assert world.changes == 1
    await world.client.terminate_subscription(subscription.external_id)
    assert [what.split()[0] for what in await world.run()] == ["org"]
    world.mappings.put_requests.clear()
    assert [what.split()[0] for what in await world.run()] == ["mapping"]


async def test_a_plan_of_that_name_with_other_charges_is_refused_and_nothing_is_created(world: World) -> None:
    await world.lago.metric(CODE)
    await world.lago.plan(NAME)
    with pytest.raises(Rejected) as caught:
        await world.run()
    assert caught.value.reason == "canary_plan"
    assert await world.client.customer(ORG) is None


async def test_nothing_is_changed_if_the_change_cannot_be_logged(world: World) -> None:
    await world.lago.metric(CODE)

    async def refused() -> None:
        raise Unavailable("audit_unwritten")

    with pytest.raises(Unavailable):
        await world.run(refused)
    assert await world.client.plan(NAME) is None
