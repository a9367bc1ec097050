"""What the org endpoints answer with, and by which status their refusals go.

Money is in the smallest unit of its currency, moments and days are ISO 8601 and UTC; both are Lago's own.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, StringConstraints

from connectors.billing.org_accounts import NO_SUBSCRIPTION, UNKNOWN_ORG, Account, unknown_org
from connectors.billing.org_billing import OTHER_PLAN
from connectors.http.endpoint import AuthorizedRequest, Handler
from connectors.http.problem import Problem
from connectors.lago.errors import LagoRejected
from connectors.lago.response_types import Customer, Plan
from schemas.errors import Rejected

#: Ids become paths, Kafka keys and database text.
Id = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=255, pattern=r"^([^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+)?$"),
]

_STATUS: Final[Mapping[str, int]] = {
    UNKNOWN_ORG: 404,
    "unknown_customer": 404,
    NO_SUBSCRIPTION: 404,
    "no_active_subscription": 404,
    "unknown_invoice": 404,
    OTHER_PLAN: 409,
    "several_subscriptions": 409,
    "plan_differs": 409,
}


class AttributesModel(BaseModel):
    """Read off the attributes of our own types."""

    model_config = ConfigDict(from_attributes=True)


class OrgShown(AttributesModel):
    """A billed org: Lago's customer."""

    org_id: str
    lago_id: str | None = None
    name: str | None = None
    email: str | None = None
    currency: str | None = None
    created_at: str | None = None
    metadata: dict[str, str] = {}


class SubscriptionShown(AttributesModel):
    """`next_plan_code` and `downgrade_plan_date` show a change that waits for the period's end."""

    external_id: str
    plan_code: str | None = None
    status: str = ""
    billing_time: str | None = None
    subscription_at: str | None = None
    started_at: str | None = None
    ending_at: str | None = None
    terminated_at: str | None = None
    previous_plan_code: str | None = None
    next_plan_code: str | None = None
    downgrade_plan_date: str | None = None
    current_billing_period_started_at: str | None = None
    current_billing_period_ending_at: str | None = None


class AccountShown(AttributesModel):
    """An org with its subscription; null where it has none."""

    org: OrgShown
    subscription: SubscriptionShown | None = None


class ChargeShown(AttributesModel):
    """A charge of a plan."""

    billable_metric_code: str
    charge_model: str


class PlanShown(AttributesModel):
    """`amount_cents` an `interval`."""

    code: str
    name: str = ""
    interval: str = ""
    amount_cents: int = 0
    amount_currency: str
    pay_in_advance: bool = False
    charges: list[ChargeShown] = []
    lago_id: str = ""


def answer(shown: BaseModel, status: int = 200) -> web.Response:
    """The model as JSON."""
    return web.Response(status=status, body=shown.model_dump_json().encode(), content_type="application/json")


def org_shown(customer: Customer) -> OrgShown:
    """Lago's customer as an org."""
    metadata = {entry.key: entry.value for entry in customer.metadata}
    return OrgShown(
        org_id=customer.external_id,
        lago_id=customer.lago_id,
        name=customer.name,
        email=customer.email,
        currency=customer.currency,
        created_at=customer.created_at,
        metadata=metadata,
    )


def account_shown(account: Account) -> AccountShown:
    """See `AccountShown`."""
    found = account.subscription
    running = SubscriptionShown.model_validate(found) if found is not None else None
    return AccountShown(org=org_shown(account.customer), subscription=running)


def plan_shown(plan: Plan) -> PlanShown:
    """See `PlanShown`."""
    return PlanShown.model_validate(plan)


def told(handler: Handler) -> Handler:
    """The handler, its refusals answered with the status that fits: 404 what is not there, 409 what stands against it."""

    async def telling(asked: AuthorizedRequest) -> web.StreamResponse:
        try:
            return await handler(asked)
        except Rejected as error:
            if isinstance(error, LagoRejected) and error.code == "customer_not_found":
                error = unknown_org()
            status = _STATUS.get(error.reason)
            if status is None:
                raise
            raise Problem(status, error.reason, error.detail) from error

    return telling
