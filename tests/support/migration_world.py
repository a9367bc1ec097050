"""A Lago with users that are to become orgs, and everything that is kept when the migrating process ends."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from connectors.billing.metered_events import InMemoryUsage
from connectors.billing.org_billing import OrgBilling
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from connectors.billing.subscription_id_store import InMemoryIds
from connectors.operations.org_migration import OrgMigration
from connectors.operations.usage_in_flight import UsageInFlight
from connectors.operations.user_orgs import UserOrg
from schemas.customers import CustomerRecord, OrgRecord
from schemas.moments import HOUR_US, SECOND_US
from streams.core.mapping.resolve import resolve
from streams.core.mapping.set_mapping import MappingRequest, set_mapping
from tests.support.mortal_wire import Killed, MortalWire
from tests.support.sandbox import Clock, Lago

LEAD_US, SETTLED_US = 5 * SECOND_US, 27 * HOUR_US
ACME = UserOrg("user_1", "org_1", "Acme", "a@acme.io")
SENT = [False, True]


@dataclass
class Stored:
    """Everything except Lago that is kept when a process ends: ids, records, the audit log. A process may die at a
    write.
    """

    ids: InMemoryIds = field(default_factory=InMemoryIds)
    customers: dict[str, CustomerRecord] = field(default_factory=dict)
    orgs: dict[str, OrgRecord] = field(default_factory=dict)
    audit: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    dies_at: int | None = None
    writes: int = 0

    def _write(self, doing: Callable[[], None]) -> None:
        """Dies before a write of an odd number, after one of an even number."""
        self.writes += 1
        fatal = self.dies_at is not None and self.writes >= (self.dies_at + 1) // 2
        if not (fatal and self.dies_at % 2):  # type: ignore[operator]
            doing()
        if fatal:
            raise Killed

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        wanted = make(self.orgs.get(org_id, OrgRecord(org_id)))
        self._write(lambda: self.orgs.update({org_id: wanted}))
        return wanted

    def map(self, request: MappingRequest, now_us: int) -> None:
        customer_id = request.litellm_customer_id
        wanted = set_mapping(self.customers.get(customer_id), request, now_us, LEAD_US)
        if wanted != self.customers.get(customer_id):
            self._write(lambda: self.customers.update({customer_id: wanted}))

    def reported(self, entry: UserOrg, steps: Sequence[str]) -> None:
        self._write(lambda: self.audit.append((entry.user_id, tuple(steps))))


class Refusing(MortalWire):
    """Answers the first POST to a path with an error, in Lago's form."""

    def __init__(self, path: str, status: int) -> None:
        super().__init__()
        self.path = path
        self.status = status

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if (request.method, request.url.path) == ("POST", self.path):
            self.path = ""
            return httpx.Response(self.status, json={"status": self.status, "error": "no"}, request=request)
        return await super().handle_async_request(request)


class Overtaken(MortalWire):
    """Once the org's subscriptions have been requested `times` times, another program subscribes it to another plan."""

    def __init__(self, lago: Lago, org_id: str, plan: str, times: int) -> None:
        super().__init__()
        self._subscribe = lambda: lago.subscribe("theirs", org_id, plan)
        self._org_id = org_id
        self._times = times

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        asked = request.url.params.get("external_customer_id")
        if request.method == "GET" and asked == self._org_id:
            self._times -= 1
            if self._times == 0:
                await response.aread()
                await self._subscribe()
        return response


@dataclass
class World:
    lago: Lago
    clock: Clock
    stored: Stored = field(default_factory=Stored)
    loose: UsageInFlight = field(default_factory=UsageInFlight)
    wires: list[MortalWire] = field(default_factory=list)
    asked: int = 0

    def now_us(self) -> int:
        return round(self.clock.now * SECOND_US)

    def process(self, wire: MortalWire | None = None, dies_at: int | None = None) -> OrgMigration:
        """Return a new process."""
        self.wires.append(wire or MortalWire())
        lago, stored = self.wires[-1].client(self.lago.url), self.stored
        stored.dies_at, stored.writes = dies_at, 0
        world = self

        class Mappings:
            async def put(self, request: MappingRequest, *, ask_lago: bool) -> None:
                stored.map(request, world.now_us())

        async def announce(entry: UserOrg, steps: Sequence[str]) -> None:
            stored.reported(entry, steps)

        async def loose() -> UsageInFlight:
            self.asked += 1
            return self.loose

        return OrgMigration(
            OrgBilling(lago, stored.ids, InMemoryUsage(), now_us=self.now_us),
            Mappings(),
            SubscriptionDiscovery(stored.customers, stored.orgs, stored, lago, now_us=self.now_us),
            stored.customers,
            announce=announce,
            loose=loose,
            mapping_delay_us=LEAD_US,
            settled_us=SETTLED_US,
            now_us=self.now_us,
        )

    async def user(self, user_id: str, plan: str = "starter", *customers: str, **fields: Any) -> None:
        """Create a user with a subscription, who pays for these LiteLLM customers."""
        await self.lago.subscribe(f"of {user_id}", user_id, plan, **fields)
        for customer in customers:
            self.stored.map(MappingRequest(customer, user_id, "tenant", plan), self.now_us() - HOUR_US)

    async def everything(self) -> tuple[list[str], list[tuple[str, str, str]]]:
        """Customers, and subscriptions of every state as (customer, plan, state)."""
        customers = (await self.lago.get("/customers")).json()["customers"]
        states = ["active", "pending", "terminated", "canceled"]
        listed = (await self.lago.get("/subscriptions", **{"status[]": states})).json()["subscriptions"]
        result = sorted((one["external_customer_id"], one["plan_code"], one["status"]) for one in listed)
        return sorted(one["external_id"] for one in customers), result

    def payer(self, customer: str, at_us: int) -> tuple[str, str]:
        """Org and subscription of a call that ended then."""
        target = resolve(self.stored.customers[customer], at_us, "end_user", self.stored.orgs)
        return target.org_id, target.subscription or target.held
