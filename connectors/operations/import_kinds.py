"""The kinds of rows that can be imported: mappings, which become records in Kafka, and Lago's customers and
subscriptions.
"""

from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, Field

from connectors.billing.mapping_bodies import Id, MappingRow
from connectors.billing.mappings import UNKNOWN_ORG, MappingGuard, Mappings
from connectors.billing.org_billing import RUNNING, OrgBilling
from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected, plan_not_found
from connectors.operations.imports import CHANGED, CREATED, UNCHANGED, RowsWarning
from schemas.plurals import numbered
from streams.core.mapping.set_mapping import MappingRequest

_Org = Annotated[Id, Field(validation_alias=AliasChoices("org_id", "external_id", "external_customer_id"))]


class CustomerRow(BaseModel):
    """An org's customer in Lago. Unknown members are ignored; members that are left out are not changed.

    Fields:
        org_id: also called `external_id`.
        name: by default the id.
    """

    org_id: _Org
    name: Annotated[str, Field(max_length=255)] = ""
    email: Annotated[str, Field(max_length=255)] = ""
    user_id: Id | None = None


class SubscriptionRow(BaseModel):
    """A subscription of an org. If the org has another plan, the row changes the plan.

    Fields:
        org_id: also called `external_customer_id`.
        subscription_at: the start as ISO 8601; by default now.
    """

    org_id: _Org
    plan_code: Id
    billing_time: Literal["anniversary", "calendar"] = "anniversary"
    subscription_at: Id | None = None


class MappingRows:
    """Imports mappings, as `POST /customers/mapping` takes them."""

    model = MappingRow

    def __init__(self, mappings: Mappings, guard: MappingGuard | None = None, *, dry_run: bool = False) -> None:
        self._mappings = mappings
        self._guard = guard
        self._dry_run = dry_run
        self._rows_of: dict[str, int] = {}

    def key(self, row: MappingRow) -> str:
        """Return the customer."""
        return row.litellm_customer_id

    async def take(self, row: MappingRow) -> str:
        """Map the customer. The management API asks Lago later, in the background. Raises: as `Mappings.put`."""
        request = self._mappings.placed(row.wanted())
        done = await self._taken(request)
        self._rows_of[request.lago_customer_id] = self._rows_of.get(request.lago_customer_id, 0) + 1
        return done

    async def _taken(self, request: MappingRequest) -> str:
        if self._dry_run:
            if self._guard is not None:
                self._mappings.check(request.litellm_customer_id, self._guard)
            before, after = self._mappings.would(request)
            if self._guard is not None:
                self._guard.allows(before, after)
            return UNCHANGED if after == before else CHANGED if before is not None else CREATED
        mapped = await self._mappings.put(request, self._guard, ask_lago=False)
        return UNCHANGED if not mapped.changed else CREATED if mapped.created else CHANGED

    async def warnings(self) -> list[RowsWarning]:
        """Name the orgs that Lago does not know, as the answer to a single mapping does."""
        unknown, unasked = await self._mappings.unknown_orgs(list(self._rows_of))
        found = [RowsWarning(org_id, self._rows_of[org_id], UNKNOWN_ORG) for org_id in sorted(unknown)]
        if unasked:
            found.append(RowsWarning(None, 0, f"{numbered(unasked, 'org was', 'orgs were')} not looked up in Lago"))
        return found


class _LagoRows:
    """Base class for rows about orgs in Lago."""

    def __init__(self, lago: LagoClient, billing: OrgBilling, *, dry_run: bool = False) -> None:
        self._lago = lago
        self._billing = billing
        self._dry_run = dry_run

    def key(self, row: CustomerRow | SubscriptionRow) -> str:
        """Return the org."""
        return row.org_id

    async def warnings(self) -> list[RowsWarning]:
        """Return nothing: Lago itself has taken or refused each row."""
        return []


class CustomerRows(_LagoRows):
    """Imports customers. An existing customer is changed if its name or email differs."""

    model = CustomerRow

    async def take(self, row: CustomerRow) -> str:
        """Create or change the customer. Raises: LagoIntegrationError."""
        known = await self._lago.customer(row.org_id)
        if known is None:
            if not self._dry_run:
                await self._billing.create_customer(row.org_id, row.name or row.org_id, row.email, row.user_id, None)
            return CREATED
        name = row.name if row.name not in ("", known.name) else None
        email = row.email if row.email not in ("", known.email) else None
        if name is None and email is None:
            return UNCHANGED
        if not self._dry_run:
            await self._billing.update_customer(row.org_id, name, email, None)
        return CHANGED


class SubscriptionRows(_LagoRows):
    """Imports subscriptions, one for each org."""

    model = SubscriptionRow

    async def take(self, row: SubscriptionRow) -> str:
        """Subscribe the org or change its plan.

        Raises:
            LagoRejected: `unknown_customer`: import customers first.
            LagoIntegrationError
        """
        running = await self._lago.subscriptions(row.org_id, RUNNING)
        if any(row.plan_code == (one.next_plan_code or one.plan_code) for one in running):
            return UNCHANGED
        if not running and await self._lago.customer(row.org_id) is None:
            raise LagoRejected("unknown_customer", "Lago has no such customer: import customers first")
        if self._dry_run:
            if await self._lago.plan(row.plan_code) is None:
                raise plan_not_found(row.plan_code)
        else:
            await self._billing.subscribe(row.org_id, row.plan_code, row.billing_time, row.subscription_at)
        return CHANGED if running else CREATED
