"""Usage limits over HTTP: of one org, and of all orgs on a plan. They are read from our own table, so they do not need Lago."""

from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, Field, StrictInt

from connectors.api.org_models import answer
from connectors.api.organization_choice import OrganizationQuery
from connectors.api.orgs import ORG
from connectors.billing.org_accounts import OrgAccounts
from connectors.billing.usage_limits import MAX_NAMES, RecordLimits
from connectors.http.endpoint import AuthorizedRequest, endpoint

PLAN_LIMITS: Final = "/api/v1/billing/plans/{plan_code}/limits"

Most = Annotated[StrictInt, Field(ge=0, lt=1 << 63)]


class LimitsBody(BaseModel, extra="forbid"):
    """All limits, by name: `tokens`, `requests`, `amount_cents`, or a billable metric's code. `{}` removes all limits.

    Fields:
        limits: the limit of one billing period by name: `tokens`, `requests`, `amount_cents`, or a billable
            metric's code; `{}` = none.
    """

    limits: Annotated[dict[Annotated[str, Field(max_length=255)], Most], Field(max_length=MAX_NAMES)]


class LimitsOfOrg(BaseModel):
    """The limits of an org.

    Fields:
        plan_code: the code of the org's plan; null = it has no subscription.
        limits: the org's own ones.
        plan_limits: those of its plan.
        effective: both together; the org's own limit replaces the plan's limit of the same name.
    """

    org_id: str
    plan_code: str | None
    limits: dict[str, int]
    plan_limits: dict[str, int]
    effective: dict[str, int]


class PlanLimits(BaseModel):
    """The limits of a plan. An org's own limit of the same name replaces them.

    Fields:
        limits: the limit of one billing period by name: `tokens`, `requests`, `amount_cents`, or a billable
            metric's code.
    """

    plan_code: str
    limits: dict[str, int]


class LimitHandlers:
    """`/limits` of an org and of a plan."""

    def __init__(self, accounts: OrgAccounts, limits: RecordLimits) -> None:
        self._accounts = accounts
        self._limits = limits

    @endpoint("GET", f"{ORG}/limits", "orgs:read", refuses={404: ("unknown_org",)}, answers={200: LimitsOfOrg})
    async def of_org(self, authorized: AuthorizedRequest) -> web.Response:
        """Show how much an org may use in a billing period."""
        return await self._shown(authorized.part("org_id"))

    @endpoint(
        "PUT",
        f"{ORG}/limits",
        "orgs:write",
        body=LimitsBody,
        refuses={404: ("unknown_org",), 422: ("bad_limit",)},
        answers={200: LimitsOfOrg},
    )
    async def set_org(self, authorized: AuthorizedRequest) -> web.Response:
        """Replace all of an org's own limits."""
        org_id, body = authorized.part("org_id"), authorized.body
        await self._plan_of(org_id)
        await authorized.changing({"limits": dict(await self._limits.of_org(org_id))}, {"limits": body.limits})
        await self._limits.set_org(org_id, body.limits)
        return await self._shown(org_id)

    @endpoint(
        "GET",
        PLAN_LIMITS,
        "plans:read",
        query=OrganizationQuery,
        refuses={404: ("plan_not_found",)},
        answers={200: PlanLimits},
        sees_to_orgs=True,
    )
    async def of_plan(self, authorized: AuthorizedRequest) -> web.Response:
        """Show how much an org on the plan may use in a billing period."""
        code = authorized.part("plan_code")
        limits = dict(await self._limits.of_plan(code))
        if not limits:
            await self._accounts.plan(code)
        return answer(PlanLimits(plan_code=code, limits=limits))

    @endpoint(
        "PUT",
        PLAN_LIMITS,
        "plans:write",
        body=LimitsBody,
        query=OrganizationQuery,
        refuses={404: ("plan_not_found",), 422: ("bad_limit",)},
        answers={200: PlanLimits},
    )
    async def set_plan(self, authorized: AuthorizedRequest) -> web.Response:
        """Replace all limits of a plan."""
        code, body = authorized.part("plan_code"), authorized.body
        await self._accounts.plan(code)
        await authorized.changing({"limits": dict(await self._limits.of_plan(code))}, {"limits": body.limits})
        return answer(PlanLimits(plan_code=code, limits=dict(await self._limits.set_plan(code, body.limits))))

    async def _plan_of(self, org_id: str) -> str:
        """Return the code of the org's plan; `""` = it has no plan. Lago is asked only about an org for which we have
        no record.
        """
        record = await self._accounts.records.get(org_id)
        if record is not None and await self._accounts.is_known(org_id):
            return record.plan
        account = await self._accounts.account(org_id)
        return (account.subscription.plan_code or "") if account.subscription is not None else ""

    async def _shown(self, org_id: str) -> web.Response:
        plan = await self._plan_of(org_id)
        own = dict(await self._limits.of_org(org_id))
        of_plan = dict(await self._limits.of_plan(plan)) if plan else {}
        effective = {**of_plan, **own}
        return answer(
            LimitsOfOrg(org_id=org_id, plan_code=plan or None, limits=own, plan_limits=of_plan, effective=effective)
        )
