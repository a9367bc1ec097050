"""A Lago in memory for code that keeps the orgs' records, and those records. Other clients may change both between two requests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from connectors.lago.requests import NewCustomer, NewSubscription
from connectors.lago.responses import Customer, Plan, Subscription
from schemas.customers import OrgRecord
from schemas.errors import Unavailable


@dataclass
class Books:
    """Customers and subscriptions.

    Fields:
        payers: the customers, by external id.
        away: orgs for which Lago does not answer.
        asked: the orgs whose subscriptions were requested; `""` = those of all orgs.
        meanwhile: changes by other clients between a response of the method with this name and its arrival;
            `subscriptions and ended` if ended ones were requested.
        posted: subscriptions whose creation was requested.
        catalogue: plans, by code. Other plans exist and charge nothing, except those that are `absent`.
    """

    payers: dict[str, Customer] = field(default_factory=dict)
    listed: dict[str, list[Subscription]] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    meanwhile: dict[str, Callable[[], object]] = field(default_factory=dict)
    posted: list[NewSubscription] = field(default_factory=list)
    catalogue: dict[str, Plan] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)

    async def subscriptions(
        self, external_customer_id: str = "", statuses: Sequence[str] = ("active",), plan_code: str = ""
    ) -> list[Subscription]:
        return self._listed("subscriptions", external_customer_id, statuses)

    async def customer(self, external_id: str) -> Customer | None:
        return self.payers.get(external_id)

    async def customers(self) -> list[Customer]:
        return list(self.payers.values())

    async def save_customer(self, wanted: NewCustomer, metadata: Mapping[str, str] | None) -> Customer:
        created = self.payers[wanted.external_id] = Customer(wanted.external_id)
        self._others("save_customer")
        return created

    async def subscription(self, external_id: str, status: str = "active") -> Subscription | None:
        found = (one for many in self.listed.values() for one in many if one.external_id == external_id)
        return next((one for one in found if one.status == status), None)

    async def plan(self, code: str) -> Plan | None:
        return None if code in self.absent else self.catalogue.get(code) or Plan(code, "USD")

    async def plans(self) -> list[Plan]:
        return list(self.catalogue.values())

    async def create_subscription(self, wanted: NewSubscription) -> Subscription:
        self.posted.append(wanted)
        return Subscription(wanted.external_id, plan_code=wanted.plan_code)

    def _listed(self, method: str, org_id: str, statuses: Sequence[str]) -> list[Subscription]:
        self.asked.append(org_id)
        if org_id in self.away:
            raise Unavailable("http_503", "no answer for this one")
        whose = [org_id] if org_id else list(self.listed)
        found = [one for org in whose for one in self.listed.get(org, ()) if one.status in statuses]
        self._others(f"{method} and ended" if "terminated" in statuses else method)
        return found

    def _others(self, method: str) -> None:
        self.meanwhile.get(method, lambda: None)()


class Records:
    """The orgs' records."""

    def __init__(self, *records: OrgRecord) -> None:
        self.all = {record.org_id: record for record in records}

    async def get(self, org_id: str) -> OrgRecord | None:
        return self.all.get(org_id)

    async def change(self, org_id: str, make: Callable[[OrgRecord], OrgRecord]) -> OrgRecord:
        self.all[org_id] = make(self.all.get(org_id) or OrgRecord(org_id))
        return self.all[org_id]
