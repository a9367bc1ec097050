"""Limits over HTTP: of an org, and of everybody on a plan. Read from our own table, whatever Lago does."""

from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, Field, StrictInt

from connectors.api.org_models import answer, told
from connectors.api.orgs import ORG
from connectors.billing.org_accounts import OrgAccounts
from connectors.billing.usage_limits import MAX_NAMES, RecordLimits
from connectors.http.endpoint import AuthorizedRequest, Endpoint

PLAN_LIMITS: Final = "/api/v1/billing/plans/{plan_code}/limits"

Most = Annotated[StrictInt, Field(ge=0, lt=1 << 63)]


class LimitsBody(BaseModel, extra="forbid"):
    """All limits, by name: `tokens`, `requests`, `amount_cents`, or a billable metric's code. `{}` takes them away."""

    limits: Annotated[dict[Annotated[str, Field(max_length=255)], Most], Field(max_length=MAX_NAMES)]


class OrgLimits(BaseModel):
    """Fields: limits: the org's own; plan_limits: of its plan; effective: both, the org's own first."""

    org_id: str
    plan_code: str | None
    limits: dict[str, int]
    plan_limits: dict[str, int]
    effective: dict[str, int]


class PlanLimits(BaseModel):
    """Of everybody on the plan who has none of their own."""

    plan_code: str
    limits: dict[str, int]


def limit_endpoints(accounts: OrgAccounts, limits: RecordLimits) -> list[Endpoint]:
    """`/limits` of an org and of a plan."""
    handlers = _LimitHandlers(accounts, limits)
    return [
        Endpoint(
            "GET",
            f"{ORG}/limits",
            "orgs:read",
            "The most that an org may use in a billing period.",
            told(handlers.of_org),
            answers={200: OrgLimits},
            org="org_id",
        ),
        Endpoint(
            "PUT",
            f"{ORG}/limits",
            "orgs:write",
            "Set all of an org's own limits.",
            told(handlers.set_org),
            body=LimitsBody,
            answers={200: OrgLimits},
            org="org_id",
            changes=True,
        ),
        Endpoint(
            "GET",
            PLAN_LIMITS,
            "plans:read",
            "The most that an org on the plan may use in a billing period.",
            told(handlers.of_plan),
            answers={200: PlanLimits},
            sees_to_orgs=True,
        ),
        Endpoint(
            "PUT",
            PLAN_LIMITS,
            "plans:write",
            "Set all limits of a plan.",
            told(handlers.set_plan),
            body=LimitsBody,
            answers={200: PlanLimits},
            changes=True,
        ),
    ]


class _LimitHandlers:
    """The handlers."""

    def __init__(self, accounts: OrgAccounts, limits: RecordLimits) -> None:
        self._accounts = accounts
        self._limits = limits

    async def of_org(self, asked: AuthorizedRequest) -> web.Response:
        return await self._shown(asked.part("org_id"))

    async def set_org(self, asked: AuthorizedRequest) -> web.Response:
        org_id, body = asked.part("org_id"), asked.body
        await self._known(org_id)
        await asked.changing({"limits": dict(await self._limits.of_org(org_id))}, {"limits": body.limits})
        await self._limits.set_org(org_id, body.limits)
        return await self._shown(org_id)

    async def of_plan(self, asked: AuthorizedRequest) -> web.Response:
        code = asked.part("plan_code")
        limits = dict(await self._limits.of_plan(code))
        if not limits:
            await self._accounts.plan(code)
        return answer(PlanLimits(plan_code=code, limits=limits))

    async def set_plan(self, asked: AuthorizedRequest) -> web.Response:
        code, body = asked.part("plan_code"), asked.body
        await self._accounts.plan(code)
        await asked.changing({"limits": dict(await self._limits.of_plan(code))}, {"limits": body.limits})
        return answer(PlanLimits(plan_code=code, limits=dict(await self._limits.set_plan(code, body.limits))))

    async def _known(self, org_id: str) -> str:
        """The org's plan; Lago is asked only about an org that we have no record of."""
        record = await self._accounts.records.get(org_id)
        if record is not None and await self._accounts.is_known(org_id):
            return record.plan
        account = await self._accounts.account(org_id)
        return (account.subscription.plan_code or "") if account.subscription is not None else ""

    async def _shown(self, org_id: str) -> web.Response:
        plan = await self._known(org_id)
        own = dict(await self._limits.of_org(org_id))
        of_plan = dict(await self._limits.of_plan(plan)) if plan else {}
        effective = {**of_plan, **own}
        return answer(
            OrgLimits(org_id=org_id, plan_code=plan or None, limits=own, plan_limits=of_plan, effective=effective)
        )
