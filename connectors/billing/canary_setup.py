"""Makes everything that the canary needs before its first call: a plan and a subscription in Lago, the org's record,
and a mapping.

Each of them is made only if it is missing, so an interrupted run can be repeated.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from connectors.billing.lago_setup import CURRENCY
from connectors.billing.mappings import Mappings
from connectors.billing.org_accounts import OrgAccounts, OrgRequest
from connectors.lago.client import LagoClient
from connectors.lago.requests import NewCharge, NewPlan
from connectors.lago.responses import Plan
from schemas.errors import Rejected
from streams.core.mapping.set_mapping import MappingRequest

#: Name and metadata of the org in Lago. They tell a reader of its invoices that the usage is synthetic.
NAME: Final = "Meterbridge canary (synthetic usage, no real customer)"
NOTE: Final = {"synthetic": "meterbridge canary"}
_DYNAMIC: Final = "dynamic"


@dataclass(slots=True)
class CanarySetup:
    """Makes the missing objects of one canary.

    Args:
        code: code of the metric of usage, `LAGO_EVENT_CODE`.
        name: id of the canary's LiteLLM customer, and code of its plan.
        org: id of the Lago customer that pays.
        organization: the name that mappings use for the Lago organisation of `LAGO_API_URL`.
        before_change: awaited once, before the first change. Raises: MeterbridgeError: change nothing.
    """

    lago: LagoClient
    accounts: OrgAccounts
    mappings: Mappings
    code: str
    name: str
    org: str
    before_change: Callable[[], Awaitable[None]]
    organization: str = "main"
    _made: list[str] = field(default_factory=list, init=False)

    async def run(self) -> list[str]:
        """Make the missing objects; return their names.

        Raises:
            Rejected: `no_metric`: Lago has no metric of usage. `canary_plan`: the plan exists and does not bill the usage.
            LagoIntegrationError, Unavailable
        """
        await self._plan()
        request = OrgRequest(self.org, NAME, plan_code=self.name, metadata=dict(NOTE))
        account = await self.accounts.set_up(request, self._changing_account)
        if account.created:
            self._made.append(f"org {self.org} with a subscription of the plan {self.name}")
        await self._mapping()
        return self._made

    async def _plan(self) -> None:
        metric = await self.lago.metric(self.code)
        if metric is None:
            raise Rejected("no_metric", f"Lago has no metric {self.code}: run `meterbridge lago setup` first")
        plan = await self.lago.plan(self.name)
        if plan is None:
            await self._change(f"plan {self.name}")
            charge = NewCharge(billable_metric_id=metric.lago_id, charge_model=_DYNAMIC, properties={})
            plan = await self.lago.create_plan(_new_plan(self.name, charge))
        if not _bills(plan, self.code):
            sentence = f"the plan {self.name} is not one of {CURRENCY} that charges {self.code} as {_DYNAMIC}"
            raise Rejected("canary_plan", sentence)

    async def _mapping(self) -> None:
        known = await self.mappings.get(self.name)
        if known is not None and known.version.is_active and known.version.lago_customer_id == self.org:
            return
        await self._change(f"mapping of the customer {self.name} to {self.org}")
        await self.mappings.put(MappingRequest(self.name, self.org, self.organization, self.name))

    async def _changing_account(self, before: Any, after: Any) -> None:
        if before != after:
            await self._change("")

    async def _change(self, what: str) -> None:
        """Register a change that follows now."""
        if not self._made:
            await self.before_change()
        if what:
            self._made.append(what)


def _new_plan(code: str, charge: NewCharge) -> NewPlan:
    return NewPlan(
        name=NAME,
        code=code,
        interval="monthly",
        amount_cents=0,
        amount_currency=CURRENCY,
        pay_in_advance=False,
        charges=(charge,),
    )


def _bills(plan: Plan, code: str) -> bool:
    models = [charge.charge_model for charge in plan.charges if charge.billable_metric_code == code]
    return models == [_DYNAMIC] and plan.amount_currency == CURRENCY
