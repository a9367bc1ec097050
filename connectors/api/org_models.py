"""The responses of the org endpoints.

Money is in the smallest unit of its currency. Moments and days are ISO 8601 in UTC, as Lago writes them.
"""

from collections.abc import Mapping
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, StringConstraints

from connectors.billing.org_accounts import Account
from connectors.lago.responses import Customer, Plan

#: An id becomes a part of a path, a Kafka key and text in a database.
Id = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Name = Annotated[str, StringConstraints(strip_whitespace=True, max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]
Email = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=255, pattern=r"^([^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+)?$"),
]


class AttributesModel(BaseModel):
    """A model that pydantic fills from the attributes of another object."""

    model_config = ConfigDict(from_attributes=True)


class OrgShown(AttributesModel):
    """An org that is billed: a customer of Lago.

    Fields:
        name: its name on invoices; null = it has none.
        metadata: what is stored at the customer in Lago.
    """

    org_id: str
    lago_id: str | None = None
    name: str | None = None
    email: str | None = None
    currency: str | None = None
    created_at: str | None = None
    metadata: dict[str, str] = {}


class SubscriptionShown(AttributesModel):
    """A subscription of Lago; `next_plan_code` and `downgrade_plan_date` show a change that waits for the period's end.

    Fields:
        external_id: Lago's `external_id` of the subscription.
        status: Lago's state: `active`, `pending`, `terminated` or `canceled`.
        billing_time: `anniversary`: periods begin at the start of the subscription; `calendar`: with the
            calendar's months.
        subscription_at: when the subscription was to begin, ISO 8601.
        started_at: when it began, ISO 8601; null = not yet.
        ending_at: when it will end, ISO 8601; null = it has no end.
        terminated_at: when it ended, ISO 8601; null = it runs.
        previous_plan_code: the plan before the last change.
        next_plan_code: the plan of a change that waits for the period's end.
        downgrade_plan_date: the day of that change, `YYYY-MM-DD`.
        current_billing_period_started_at, current_billing_period_ending_at: bounds of the running billing
            period, ISO 8601.
    """

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
    """An org with its subscription; null if it has none.

    Fields:
        org: the org that is billed.
        subscription: its running subscription; null = it has none.
    """

    org: OrgShown
    subscription: SubscriptionShown | None = None


class ChargeShown(AttributesModel):
    """The charge of a plan on one billable metric.

    Fields:
        billable_metric_code: the code of the billable metric.
        charge_model: Lago's model of the charge, e.g. `dynamic` or `standard`.
    """

    billable_metric_code: str
    charge_model: str


class PlanShown(AttributesModel):
    """A plan; it costs `amount_cents` per `interval`.

    Fields:
        code: the plan's code in Lago.
        name: its name on invoices.
        interval: `weekly`, `monthly`, `quarterly`, `semiannual` or `yearly`.
        amount_cents: the price of one interval, in the smallest unit of the currency.
        pay_in_advance: true: an interval is paid at its start.
    """

    code: str
    name: str = ""
    interval: str = ""
    amount_cents: int = 0
    amount_currency: str
    pay_in_advance: bool = False
    charges: list[ChargeShown] = []
    lago_id: str = ""


def answer(shown: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a response whose body is the model as JSON."""
    body = shown.model_dump_json().encode()
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def org_shown(customer: Customer) -> OrgShown:
    """Return a customer of Lago as an org."""
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
    """Return an org's customer and subscription."""
    subscription = account.subscription
    running = SubscriptionShown.model_validate(subscription) if subscription is not None else None
    return AccountShown(org=org_shown(account.customer), subscription=running)


def plan_shown(plan: Plan) -> PlanShown:
    """Return a plan of Lago."""
    return PlanShown.model_validate(plan)
