"""Lago's customers over HTTP, in the form of its own API: saved, subscribed, read."""

from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, Field

from connectors.api.mapping_models import MappingShown, mapping_shown
from connectors.api.mappings import record_told
from connectors.api.org_invoices import PAYMENTS, InvoicesQuery, InvoicesShown, PageQuery, PageShown, listed
from connectors.api.org_models import Email, Id, Name, SubscriptionShown, answer, told
from connectors.billing.identity_mapping import Identities
from connectors.billing.mappings import Known, MappingResult
from connectors.billing.org_accounts import Account, OrgAccounts, OrgRequest
from connectors.http.endpoint import AuthorizedRequest, Endpoint
from connectors.lago.response_types import Customer


class CustomerBody(BaseModel, extra="forbid"):
    """`POST /api/customers`; name and email of a customer that is there are changed, metadata is added.

    Fields:
        plan_code: the customer is also subscribed to it, once.
    """

    external_id: Id
    name: Name = ""
    email: Email = ""
    plan_code: Id | None = None
    user_id: Annotated[Name, Field(max_length=100)] = ""
    metadata: dict[Id, Name] = {}


class CustomerListed(BaseModel):
    """Lago's customer."""

    external_id: str
    lago_id: str | None
    name: str | None
    email: str | None
    currency: str | None
    created_at: str | None
    metadata: dict[str, str]


class CustomerShown(CustomerListed):
    """Lago's customer with its running subscription; null where it has none.

    Fields:
        mapping: of the LiteLLM customer with this very id: who pays for usage that names it. Null where nobody does, or
            a customer that whoever asks may not see.
    """

    subscription: SubscriptionShown | None
    mapping: MappingShown | None


class CustomersShown(BaseModel):
    """Newest first."""

    customers: list[CustomerListed]
    meta: PageShown


def customer_endpoints(accounts: OrgAccounts, identities: Identities) -> list[Endpoint]:
    """Everything below `/api/customers`."""

    async def post(asked: AuthorizedRequest) -> web.Response:
        body: CustomerBody = asked.body
        wanted = OrgRequest(
            asked.for_org(body.external_id),
            body.name,
            body.email,
            body.user_id,
            body.plan_code or "",
            body.metadata,
            overwrite=True,
        )
        account = await accounts.set_up(wanted, asked.changing)

        async def announce(before: Known, after: Known) -> None:
            await asked.changing(record_told(before), record_told(after))

        # Lago first: whoever dies in between repeats the request, and finds done what is done.
        mapped = await identities.write(body.external_id, wanted.plan_code, announce)
        return answer(_shown(asked, account, mapped), 201 if account.created else 200)

    async def every(asked: AuthorizedRequest) -> web.Response:
        query: PageQuery = asked.query
        page = await accounts.billing.lago.customers_page(query.page, query.per_page)
        listed = [CustomerListed.model_validate(_fields(one)) for one in page.members]
        return answer(CustomersShown(customers=listed, meta=PageShown.of(query, page)))

    async def get(asked: AuthorizedRequest) -> web.Response:
        customer_id = asked.part("customer_id")
        account = await accounts.account(customer_id)
        return answer(_shown(asked, account, await identities.of(customer_id)))

    async def invoices(asked: AuthorizedRequest) -> web.Response:
        return await listed(accounts, asked, asked.part("customer_id"))

    return [
        Endpoint(
            "POST",
            "/api/customers",
            "customers:write",
            "Save a customer that pays for usage naming it, and subscribe it where a plan is named; twice is once.",
            told(post),
            body=CustomerBody,
            answers={200: CustomerShown, 201: CustomerShown},
            sees_to_orgs=True,
            changes=True,
        ),
        Endpoint(
            "GET",
            "/api/customers",
            "customers:read",
            "All customers, newest first, for those who may see all orgs.",
            told(every),
            query=PageQuery,
            answers={200: CustomersShown},
        ),
        Endpoint(
            "GET",
            "/api/customers/{customer_id}",
            "customers:read",
            "A customer with its subscription.",
            told(get),
            answers={200: CustomerShown},
            org="customer_id",
            any_text=("customer_id",),
        ),
        Endpoint(
            "GET",
            "/api/customers/{customer_id}/invoices",
            "invoices:read",
            "The customer's invoices, latest first.",
            told(invoices),
            query=InvoicesQuery,
            answers={200: InvoicesShown},
            org="customer_id",
            hands_out=PAYMENTS,
            any_text=("customer_id",),
        ),
    ]


def _shown(asked: AuthorizedRequest, account: Account, mapped: MappingResult | None) -> CustomerShown:
    running, may_see = account.subscription, asked.who.may_see
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
