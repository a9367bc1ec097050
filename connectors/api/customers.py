"""Lago's customers over HTTP, in the form of Lago's own API: save, subscribe and show them."""

from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BaseModel, Field

from connectors.api.mapping_models import MappingShown, mapping_shown
from connectors.api.mappings import record_told
from connectors.api.org_invoices import PAYMENTS, InvoicesQuery, InvoicesShown, PageQuery, PageShown, listed
from connectors.api.org_models import Email, Id, Name, SubscriptionShown, answer
from connectors.api.organization_choice import OrganizationQuery
from connectors.billing.identity_mapping import Identities
from connectors.billing.mappings import Known, MappingResult
from connectors.billing.org_accounts import Account, OrgAccounts, OrgRequest
from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.lago.responses import Customer

_PATH: Final = "/api/customers"
_ONE: Final = f"{_PATH}/{{customer_id}}"
_OF_CUSTOMER: Final[dict[str, Any]] = {"org": "customer_id", "any_text": ("customer_id",)}


class CustomerBody(BaseModel, extra="forbid"):
    """A customer. If it exists, its name and email are changed, and the metadata is added.

    Fields:
        name: its name on invoices; empty = it stays as it is.
        email: where Lago sends invoices; empty = it stays as it is.
        plan_code: subscribe the customer to this plan, unless it has a subscription.
        user_id: the user in your own system, stored in Lago's metadata.
        metadata: names and values to store at the customer in Lago; others stay.
    """

    external_id: Id
    name: Name = ""
    email: Email = ""
    plan_code: Id | None = None
    user_id: Annotated[Name, Field(max_length=100)] = ""
    metadata: dict[Id, Name] = {}


class CustomerListed(BaseModel):
    """A customer of Lago.

    Fields:
        name: its name on invoices; null = it has none.
        metadata: what is stored at the customer in Lago.
    """

    external_id: str
    lago_id: str | None
    name: str | None
    email: str | None
    currency: str | None
    created_at: str | None
    metadata: dict[str, str]


class CustomerShown(CustomerListed):
    """A customer of Lago with its running subscription; null if it has none.

    Fields:
        mapping: who pays for usage of the LiteLLM customer with the same id. Null if there is no mapping, or the caller may
            not see the org that pays.
    """

    subscription: SubscriptionShown | None
    mapping: MappingShown | None


class CustomersQuery(PageQuery, OrganizationQuery):
    """A page of the customers of one Lago organisation."""


class CustomersShown(BaseModel):
    """A page of customers, the newest first.

    Fields:
        customers: the customers, the newest first.
    """

    customers: list[CustomerListed]
    meta: PageShown


class CustomerHandlers:
    """Everything below `/api/customers`."""

    def __init__(self, accounts: OrgAccounts, identities: Identities) -> None:
        self._accounts = accounts
        self._identities = identities

    @endpoint(
        "POST",
        _PATH,
        "customers:write",
        body=CustomerBody,
        refuses={404: ("plan_not_found",), 409: ("other_plan", "several_subscriptions"), 422: ("validation_errors",)},
        answers={200: CustomerShown, 201: CustomerShown},
        sees_to_orgs=True,
    )
    async def post(self, authorized: AuthorizedRequest) -> web.Response:
        """Save a customer that pays for usage of the same id, and subscribe it to a plan; repeating it changes nothing."""
        body: CustomerBody = authorized.body
        wanted = OrgRequest(
            authorized.for_org(body.external_id),
            body.name,
            body.email,
            body.user_id,
            body.plan_code or "",
            body.metadata,
            overwrite=True,
        )
        account = await self._accounts.set_up(wanted, authorized.changing)

        async def announce(before: Known, after: Known) -> None:
            await authorized.changing(record_told(before), record_told(after))

        # Lago comes first: a caller repeats an interrupted request, and finished steps then change nothing.
        mapped = await self._identities.write(body.external_id, wanted.plan_code, announce)
        return answer(_shown(authorized, account, mapped), 201 if account.created else 200)

    @endpoint("GET", _PATH, "customers:read", query=CustomersQuery, answers={200: CustomersShown})
    async def every(self, authorized: AuthorizedRequest) -> web.Response:
        """List all customers, the newest first; only for a caller that may see all orgs."""
        query: CustomersQuery = authorized.query
        page = await self._accounts.billing.lago.customers_page(query.page, query.per_page)
        listed = [CustomerListed.model_validate(_fields(member)) for member in page.members]
        return answer(CustomersShown(customers=listed, meta=PageShown.of(query, page)))

    @endpoint(
        "GET", _ONE, "customers:read", refuses={404: ("unknown_org",)}, answers={200: CustomerShown}, **_OF_CUSTOMER
    )
    async def get(self, authorized: AuthorizedRequest) -> web.Response:
        """Show a customer with its subscription."""
        customer_id = authorized.part("customer_id")
        account = await self._accounts.account(customer_id)
        return answer(_shown(authorized, account, await self._identities.of(customer_id)))

    @endpoint(
        "GET",
        f"{_ONE}/invoices",
        "invoices:read",
        query=InvoicesQuery,
        refuses={404: ("unknown_org",)},
        answers={200: InvoicesShown},
        hands_out=PAYMENTS,
        **_OF_CUSTOMER,
    )
    async def invoices(self, authorized: AuthorizedRequest) -> web.Response:
        """List the customer's invoices, the latest first."""
        return await listed(self._accounts, authorized, authorized.part("customer_id"))


def _shown(authorized: AuthorizedRequest, account: Account, mapped: MappingResult | None) -> CustomerShown:
    running, may_see = account.subscription, authorized.principal.may_see
    if mapped is not None and not may_see(mapped.version.lago_customer_id):
        mapped = None
    return CustomerShown(
        **_fields(account.customer),
        subscription=SubscriptionShown.model_validate(running) if running is not None else None,
        mapping=MappingShown.model_validate(mapping_shown(mapped, may_see)) if mapped is not None else None,
    )


def _fields(customer: Customer) -> dict[str, Any]:
    return {
        "external_id": customer.external_id,
        "lago_id": customer.lago_id,
        "name": customer.name,
        "email": customer.email,
        "currency": customer.currency,
        "created_at": customer.created_at,
        "metadata": {entry.key: entry.value for entry in customer.metadata},
    }
