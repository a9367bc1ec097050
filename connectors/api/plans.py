"""Lago's plans over HTTP, in the form of Lago's own API. Unlike in Lago's API, a charge may name its metric by code."""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from msgspec import UNSET
from pydantic import AfterValidator, BaseModel, Field, StrictBool, StrictInt

from connectors.api.org_models import Id, Name, PlanShown, answer, plan_shown
from connectors.api.organization_choice import OrganizationQuery
from connectors.billing.org_billing import OrgBilling
from connectors.config.misspelt_names import meant_by
from connectors.http.endpoint import AuthorizedRequest, endpoint
from connectors.lago.errors import LagoRejected
from connectors.lago.requests import NewCharge, NewPlan
from connectors.lago.responses import Charge, Plan

_PATH: Final = "/api/billing/plans"


def _amounts_are_text(value: Any) -> Any:
    """Refuse a JSON number as an amount: Lago refuses it too, and a float is not an exact amount of money."""
    if isinstance(value, float):
        raise ValueError('an amount must be text: "0.002"')  # noqa: TRY004  # pydantic reports ValueError
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _amounts_are_text(member)
    return value


class ChargeBody(BaseModel, extra="forbid"):
    """A charge; `billable_metric_id` is Lago's id of the metric, or the metric's code.

    Fields:
        billable_metric_id: Lago's id of the billable metric, or its code.
        charge_model: Lago's model of the charge, e.g. `dynamic` or `standard`.
        properties: what that model needs; amounts are text, e.g. `{"amount": "0.01"}`.
        invoice_display_name: its name on invoices; null = the metric's name.
    """

    billable_metric_id: Id
    charge_model: Id
    properties: Annotated[dict[str, Any], AfterValidator(_amounts_are_text)] = {}
    invoice_display_name: Name | None = None


class PlanBody(BaseModel, extra="forbid"):
    """A new plan; it costs `amount_cents` per `interval`, in the smallest unit of the currency.

    Fields:
        name: its name on invoices.
        code: the code by which subscriptions name it.
        interval: how often the amount is due.
        amount_cents: the price of one interval, in the smallest unit of the currency.
        pay_in_advance: true: an interval is paid at its start.
        charges: what usage costs in addition.
    """

    name: Id
    code: Id
    interval: Literal["weekly", "monthly", "quarterly", "semiannual", "yearly"]
    amount_cents: Annotated[StrictInt, Field(ge=0, lt=1 << 63)]
    amount_currency: Annotated[str, Field(pattern="^[A-Z]{3}$", examples=["USD"])]
    pay_in_advance: StrictBool = False
    description: Name | None = None
    charges: Annotated[list[ChargeBody], Field(max_length=100)] = []


class PlansShown(BaseModel):
    """All plans, the newest first.

    Fields:
        plans: the plans, the newest first.
    """

    plans: list[PlanShown]


class PlanHandlers:
    """`POST` and `GET /api/billing/plans`."""

    def __init__(self, billing: OrgBilling) -> None:
        self._billing = billing

    @endpoint(
        "POST",
        _PATH,
        "plans:write",
        body=PlanBody,
        query=OrganizationQuery,
        refuses={409: ("plan_differs",), 422: ("unknown_metric", "validation_errors")},
        answers={200: PlanShown, 201: PlanShown},
    )
    async def post(self, authorized: AuthorizedRequest) -> web.Response:
        """Create a plan; repeating the same request changes nothing."""
        billing = self._billing
        wanted = await _resolved(billing, authorized.body)
        known = await billing.lago.plan(wanted.code)
        if known is None:
            await authorized.changing(None, authorized.body.model_dump(mode="json", exclude_unset=True))
            try:
                made = await billing.lago.create_plan(wanted)
            finally:
                billing.directory.changed_catalogue(wanted.code)
        else:
            made = known
        if (different := _differences(made, wanted, authorized.body)) is not None:
            raise LagoRejected("plan_differs", f"Lago has this plan already, with another {different}")
        return answer(plan_shown(made), 200 if known is not None else 201)

    @endpoint("GET", _PATH, "plans:read", query=OrganizationQuery, answers={200: PlansShown}, sees_to_orgs=True)
    async def get(self, _: AuthorizedRequest) -> web.Response:
        """List all plans with their charges."""
        return answer(PlansShown(plans=[plan_shown(plan) for plan in await self._billing.lago.plans()]))


async def _resolved(billing: OrgBilling, body: PlanBody) -> NewPlan:
    """Return the plan in the form that Lago takes. Raises: LagoRejected `unknown_metric`."""
    return NewPlan(
        name=body.name,
        code=body.code,
        interval=body.interval,
        amount_cents=body.amount_cents,
        amount_currency=body.amount_currency,
        pay_in_advance=body.pay_in_advance,
        description=body.description or UNSET,
        charges=tuple([await _charge(billing, charge, place) for place, charge in enumerate(body.charges)]),
    )


async def _charge(billing: OrgBilling, charge: ChargeBody, place: int) -> NewCharge:
    return NewCharge(
        billable_metric_id=await _metric_id(billing, charge.billable_metric_id, place),
        charge_model=charge.charge_model,
        properties=charge.properties,
        invoice_display_name=charge.invoice_display_name or UNSET,
    )


async def _metric_id(billing: OrgBilling, named: str, place: int) -> str:
    """Return Lago's id of a metric; `named` is the metric's code or its id, in the charge at this place from 0."""
    if (metric := await billing.directory.metric(named)) is not None:
        return metric.lago_id
    metrics = await billing.lago.metrics()
    metric = next((metric for metric in metrics if metric.lago_id == named), None)
    if metric is None:
        near = meant_by(named, [metric.code for metric in metrics])
        detail = f"`charges.{place}.billable_metric_id`: Lago has no billable metric with the code or the id {named!r}"
        raise LagoRejected("unknown_metric", f"{detail}: did you mean {near!r}?" if near else detail)
    return metric.lago_id


def _differences(made: Plan, new_plan: NewPlan, body: PlanBody) -> str | None:
    """Return the first property in which the existing plan differs from the requested one. Charges are compared by
    number and model.
    """
    pairs = (
        ("amount", made.amount_cents, new_plan.amount_cents),
        ("currency", made.amount_currency, new_plan.amount_currency),
        ("interval", made.interval, new_plan.interval),
        ("time of payment", made.pay_in_advance, new_plan.pay_in_advance),
        ("list of charges", _models(made.charges), _models(body.charges)),
    )
    return next((name for name, actual, expected in pairs if actual != expected), None)


def _models(charges: Iterable[Charge | ChargeBody]) -> list[str]:
    return sorted(charge.charge_model for charge in charges)
