"""Lago's plans over HTTP, in the form of its own API; a charge may name its metric by code."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from aiohttp import web
from msgspec import UNSET
from pydantic import AfterValidator, BaseModel, Field, StrictBool, StrictInt

from connectors.api.org_models import Id, Name, PlanShown, answer, plan_shown, told
from connectors.billing.org_billing import OrgBilling
from connectors.http.endpoint import AuthorizedRequest, Endpoint
from connectors.lago.errors import LagoRejected
from connectors.lago.requests import NewCharge, NewPlan
from connectors.lago.response_types import Charge, Plan


def _amounts_are_text(value: Any) -> Any:
    """Lago refuses an amount that is a JSON number, and no float is an amount of money."""
    if isinstance(value, float):
        raise ValueError('an amount is text: "0.002"')  # noqa: TRY004  # the kind that pydantic tells of
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _amounts_are_text(member)
    return value


class ChargeBody(BaseModel, extra="forbid"):
    """Fields: billable_metric_id: Lago's id of the metric, or the metric's code."""

    billable_metric_id: Id
    charge_model: Id
    properties: Annotated[dict[str, Any], AfterValidator(_amounts_are_text)] = {}
    invoice_display_name: Name | None = None


class PlanBody(BaseModel, extra="forbid"):
    """`POST /api/billing/plans`; `amount_cents` an `interval`, in the currency's smallest unit."""

    name: Id
    code: Id
    interval: Literal["weekly", "monthly", "quarterly", "semiannual", "yearly"]
    amount_cents: Annotated[StrictInt, Field(ge=0, lt=1 << 63)]
    amount_currency: Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["USD"])]
    pay_in_advance: StrictBool = False
    description: Name | None = None
    charges: Annotated[list[ChargeBody], Field(max_length=100)] = []


class PlansShown(BaseModel):
    """Newest first."""

    plans: list[PlanShown]


def plan_endpoints(billing: OrgBilling) -> list[Endpoint]:
    """`POST` and `GET /api/billing/plans`."""

    async def post(asked: AuthorizedRequest) -> web.Response:
        wanted = await _resolved(billing, asked.body)
        known = await billing.lago.plan(wanted.code)
        if known is None:
            await asked.changing(None, asked.body.model_dump(mode="json", exclude_unset=True))
            try:
                made = await billing.lago.create_plan(wanted)
            finally:
                billing.directory.changed_catalogue(wanted.code)
        else:
            made = known
        if (different := _differences(made, wanted, asked.body)) is not None:
            raise LagoRejected("plan_differs", f"Lago has this plan already, with another {different}")
        return answer(plan_shown(made), 200 if known is not None else 201)

    async def get(_: AuthorizedRequest) -> web.Response:
        return answer(PlansShown(plans=[plan_shown(plan) for plan in await billing.lago.plans()]))

    return [
        Endpoint(
            "POST",
            "/api/billing/plans",
            "plans:write",
            "Create a plan; the same twice is the same once.",
            told(post),
            body=PlanBody,
            answers={200: PlanShown, 201: PlanShown},
            changes=True,
        ),
        Endpoint(
            "GET",
            "/api/billing/plans",
            "plans:read",
            "Every plan with its charges.",
            told(get),
            answers={200: PlansShown},
            sees_to_orgs=True,
        ),
    ]


async def _resolved(billing: OrgBilling, body: PlanBody) -> NewPlan:
    """As Lago wants it. Raises: LagoRejected `unknown_metric`."""
    return NewPlan(
        name=body.name,
        code=body.code,
        interval=body.interval,
        amount_cents=body.amount_cents,
        amount_currency=body.amount_currency,
        pay_in_advance=body.pay_in_advance,
        description=body.description or UNSET,
        charges=tuple([await _charge(billing, charge) for charge in body.charges]),
    )


async def _charge(billing: OrgBilling, charge: ChargeBody) -> NewCharge:
    return NewCharge(
        billable_metric_id=await _metric_id(billing, charge.billable_metric_id),
        charge_model=charge.charge_model,
        properties=charge.properties,
        invoice_display_name=charge.invoice_display_name or UNSET,
    )


async def _metric_id(billing: OrgBilling, named: str) -> str:
    """Lago's id of the metric that is named by it or by its code; a code is looked for first."""
    metric = await billing.directory.metric(named)
    if metric is None:
        metric = next((one for one in await billing.lago.metrics() if one.lago_id == named), None)
    if metric is None:
        raise LagoRejected("unknown_metric", "a charge names a metric that is neither a code nor an id in Lago")
    return metric.lago_id


def _differences(made: Plan, wanted: NewPlan, body: PlanBody) -> str | None:
    """The first thing in which the plan is not the one that was asked for; of its charges their number and models."""
    pairs = (
        ("amount", made.amount_cents, wanted.amount_cents),
        ("currency", made.amount_currency, wanted.amount_currency),
        ("interval", made.interval, wanted.interval),
        ("time of payment", made.pay_in_advance, wanted.pay_in_advance),
        ("list of charges", _models(made.charges), _models(body.charges)),
    )
    return next((name for name, found, asked in pairs if found != asked), None)


def _models(charges: Iterable[Charge | ChargeBody]) -> list[str]:
    return sorted(one.charge_model for one in charges)
