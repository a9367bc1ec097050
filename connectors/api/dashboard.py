"""All data of an org's billing page in one response."""

from decimal import Decimal

from aiohttp import web
from pydantic import BaseModel

from connectors.api.org_invoices import InvoiceShown, invoice_shown
from connectors.api.org_models import OrgShown, PlanShown, SubscriptionShown, answer, org_shown, plan_shown
from connectors.api.org_usage import UsageShown, usage_shown
from connectors.api.orgs import ORG
from connectors.billing.dashboard import Dashboard, Dashboards
from connectors.http.endpoint import AuthorizedRequest, endpoint
from schemas.money import plain


class LimitShown(BaseModel):
    """A limit; `used` in the running period is a decimal, null if Lago does not count it; `left` is never below 0.

    Fields:
        name: `tokens`, `requests`, `amount_cents`, or the code of a billable metric.
        most: the limit for one billing period.
        used: what was used in the running period, a decimal; null = Lago does not count it.
        left: what is left in the running period, a decimal, never below 0; null = not known.
    """

    name: str
    most: int
    used: str | None = None
    left: str | None = None


class MissingShown(BaseModel):
    """A part that could not be read, and why: `org`, `subscription`, `plan`, `usage`, `limits` or `invoices`.

    Fields:
        part: `org`, `subscription`, `plan`, `usage`, `limits` or `invoices`.
    """

    part: str
    reason: str


class DashboardShown(BaseModel):
    """A billing page. A part that is null and not listed in `missing` does not exist for this org.

    Fields:
        org: from our own record if Lago does not answer.
        plan: the plan of the subscription.
        subscription: the running subscription.
        usage: usage of the running period.
        limits: one entry for each limit.
        invoices: the latest five.
        missing: parts that could not be read; empty = all were read.
    """

    org: OrgShown
    plan: PlanShown | None = None
    subscription: SubscriptionShown | None = None
    usage: UsageShown | None = None
    limits: list[LimitShown] | None = None
    invoices: list[InvoiceShown] | None = None
    missing: list[MissingShown] = []


class DashboardHandler:
    """`/dashboard` of an org."""

    def __init__(self, dashboards: Dashboards) -> None:
        self._dashboards = dashboards

    @endpoint("GET", f"{ORG}/dashboard", "orgs:read", refuses={404: ("unknown_org",)}, answers={200: DashboardShown})
    async def dashboard(self, authorized: AuthorizedRequest) -> web.Response:
        """Show all that a billing page needs; the response names the parts that Lago did not answer in time."""
        return answer(_shown(await self._dashboards.of(authorized.part("org_id"))))


def _shown(page: Dashboard) -> DashboardShown:
    running = page.subscription
    usage = usage_shown(running.external_id, page.usage) if running is not None and page.usage is not None else None
    return DashboardShown(
        org=_org(page),
        plan=plan_shown(page.plan) if page.plan is not None else None,
        subscription=SubscriptionShown.model_validate(running) if running is not None else None,
        usage=usage,
        limits=None if page.limits is None else [_limit(limit.name, limit.most, limit.used) for limit in page.limits],
        invoices=None if page.invoices is None else [invoice_shown(invoice) for invoice in page.invoices],
        missing=[MissingShown(part=gap.part, reason=gap.reason) for gap in page.missing],
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
