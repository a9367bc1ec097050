"""One answer for an org's billing page."""

from decimal import Decimal

from aiohttp import web
from pydantic import BaseModel

from connectors.api.org_invoices import InvoiceShown, invoice_shown
from connectors.api.org_models import OrgShown, PlanShown, SubscriptionShown, answer, org_shown, plan_shown, told
from connectors.api.org_usage import UsageShown, usage_shown
from connectors.api.orgs import ORG
from connectors.billing.dashboard import Dashboard, Dashboards
from connectors.http.endpoint import AuthorizedRequest, Endpoint
from schemas.money import plain


class LimitShown(BaseModel):
    """Fields: used: a decimal of the running period; null where Lago does not count it; left: never below 0."""

    name: str
    most: int
    used: str | None = None
    left: str | None = None


class MissingShown(BaseModel):
    """A part that could not be had: `org`, `subscription`, `plan`, `usage`, `limits` or `invoices`."""

    part: str
    reason: str


class DashboardShown(BaseModel):
    """A part that is null and not among `missing` is one that the org does not have.

    Fields:
        org: by our own record alone where Lago does not answer.
        invoices: the latest five.
    """

    org: OrgShown
    plan: PlanShown | None = None
    subscription: SubscriptionShown | None = None
    usage: UsageShown | None = None
    limits: list[LimitShown] | None = None
    invoices: list[InvoiceShown] | None = None
    missing: list[MissingShown] = []


def dashboard_endpoints(dashboards: Dashboards) -> list[Endpoint]:
    """`/dashboard` of an org."""

    async def dashboard(asked: AuthorizedRequest) -> web.Response:
        return answer(_shown(await dashboards.of(asked.part("org_id"))))

    return [
        Endpoint(
            "GET",
            f"{ORG}/dashboard",
            "orgs:read",
            "All that a billing page shows; parts that Lago does not tell in time are named.",
            told(dashboard),
            answers={200: DashboardShown},
            org="org_id",
        )
    ]


def _shown(page: Dashboard) -> DashboardShown:
    running = page.subscription
    usage = usage_shown(running.external_id, page.usage) if running is not None and page.usage is not None else None
    return DashboardShown(
        org=_org(page),
        plan=plan_shown(page.plan) if page.plan is not None else None,
        subscription=SubscriptionShown.model_validate(running) if running is not None else None,
        usage=usage,
        limits=None if page.limits is None else [_limit(one.name, one.most, one.used) for one in page.limits],
        invoices=None if page.invoices is None else [invoice_shown(one) for one in page.invoices],
        missing=[MissingShown(part=one.part, reason=one.reason) for one in page.missing],
    )


def _org(page: Dashboard) -> OrgShown:
    if page.customer is not None:
        return org_shown(page.customer)
    record = page.record
    if record is None:
        return OrgShown(org_id=page.org_id)
    return OrgShown(
        org_id=page.org_id,
        name=record.name or None,
        email=record.email or None,
        currency=record.currency or None,
    )


def _limit(name: str, most: int, used: Decimal | None) -> LimitShown:
    if used is None:
        return LimitShown(name=name, most=most)
    return LimitShown(name=name, most=most, used=plain(used), left=plain(max(Decimal(0), most - used)))
