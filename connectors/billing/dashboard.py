"""Makes the billing page of an org; all parts are requested at the same time.

A part that Lago does not send in time is listed as missing, never guessed. Lago's responses are cached for seconds, so
many viewers of a page cause few requests.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar

from connectors.billing.answer_cache import Cache
from connectors.billing.org_accounts import OrgAccounts, unknown_org
from connectors.billing.usage_limits import RecordLimits, used_of
from connectors.lago.errors import LagoUnavailable, reason_of
from connectors.lago.responses import Customer, CustomerUsage, Invoice, Plan, Subscription
from schemas.customers import OrgRecord
from schemas.errors import MeterbridgeError

#: How long a part is cached, and the time limit for one part, seconds.
KEPT_S: Final = 5.0
PART_S: Final = 5.0
LATEST: Final = 5
_MOST: Final = 10_000

T = TypeVar("T")


class Missing(NamedTuple):
    """A part that is unknown now, with a stable code for the reason."""

    part: str
    reason: str


class DashboardLimit(NamedTuple):
    """A limit of the running period; `used`: None = Lago does not count it, or did not answer."""

    name: str
    most: int
    used: Decimal | None


@dataclass(slots=True)
class Dashboard:
    """The parts of the page. If a part is None and is not in `missing`, Lago has none.

    Fields:
        record: Meterbridge's own record of the org; None = there is none.
        invoices: the latest invoices, the newest first.
    """

    org_id: str
    record: OrgRecord | None = None
    customer: Customer | None = None
    subscription: Subscription | None = None
    plan: Plan | None = None
    usage: CustomerUsage | None = None
    limits: list[DashboardLimit] | None = None
    invoices: list[Invoice] | None = None
    missing: list[Missing] = field(default_factory=list)


class Dashboards:
    """Makes billing pages from one Lago and the orgs' records.

    Args:
        codes: metric codes by the limit that bounds their units, see `UsageLimits`.
        clock: monotonic, seconds.
        part_s: time limit for one part, seconds.
    """

    def __init__(
        self,
        accounts: OrgAccounts,
        limits: RecordLimits,
        codes: dict[str, str],
        clock: Callable[[], float],
        *,
        part_s: float = PART_S,
    ) -> None:
        self._accounts = accounts
        self._limits = limits
        self._codes = codes
        self._part_s = part_s
        self._customers: Cache[str, Customer] = Cache(clock, KEPT_S, _MOST)
        self._usage: Cache[tuple[str, str], CustomerUsage] = Cache(clock, KEPT_S, _MOST)
        self._invoices: Cache[str, tuple[Invoice, ...]] = Cache(clock, KEPT_S, _MOST)

    async def of(self, org_id: str) -> Dashboard:
        """Make the page of one org. Raises: LagoRejected `unknown_org`; Unavailable: no part of it is known now."""
        page = Dashboard(org_id, await self._accounts.records.get(org_id))
        lago, billing = self._accounts.billing.lago, self._accounts.billing
        page.customer, page.subscription, listed = await asyncio.gather(
            self._part(page, "org", self._customers.get(org_id, lambda: lago.customer(org_id))),
            self._part(page, "subscription", billing.subscription(org_id)),
            self._part(page, "invoices", self._invoices.get(org_id, lambda: self._latest(org_id))),
        )
        page.invoices = None if listed is None else list(listed)
        gone = {gap.part for gap in page.missing}
        if page.customer is None and page.record is None:
            if "org" not in gone:
                raise unknown_org()
            raise LagoUnavailable(page.missing[0].reason, "Lago does not say now whether there is such an org")
        await self._rest(page, org_id)
        page.missing.sort()
        return page

    async def _rest(self, page: Dashboard, org_id: str) -> None:
        """Add the parts that need the subscription. Without the subscription they are missing, too."""
        running, billing = page.subscription, self._accounts.billing
        unknown = next((gap.reason for gap in page.missing if gap.part == "subscription"), None)
        if unknown is not None:
            page.missing += [Missing(part, unknown) for part in ("plan", "usage")]
        if running is not None:
            key = org_id, running.external_id
            page.usage, page.plan = await asyncio.gather(
                self._part(page, "usage", self._usage.get(key, lambda: billing.lago.usage(*key))),
                self._part(page, "plan", billing.directory.plan(running.plan_code or "")),
            )
        plan_code = (running.plan_code if running is not None else None) or (page.record.plan if page.record else "")
        page.limits = await self._part(page, "limits", self._limited(org_id, plan_code, page.usage))

    async def _limited(self, org_id: str, plan_code: str, usage: CustomerUsage | None) -> list[DashboardLimit]:
        of_plan = await self._limits.of_plan(plan_code) if plan_code else {}
        limits = {**of_plan, **await self._limits.of_org(org_id)}
        return [
            DashboardLimit(name, most, used_of(usage, name, self._codes) if usage is not None else None)
            for name, most in sorted(limits.items())
        ]

    async def _latest(self, org_id: str) -> tuple[Invoice, ...]:
        return tuple(await self._accounts.billing.lago.invoices(org_id, most=LATEST))

    async def _part(self, page: Dashboard, name: str, asking: Awaitable[T]) -> T | None:
        """Return the part; None if it does not arrive in time. Then `page.missing` lists it."""
        try:
            async with asyncio.timeout(self._part_s):
                return await asking
        except TimeoutError:
            page.missing.append(Missing(name, "timeout"))
        except MeterbridgeError as error:
            page.missing.append(Missing(name, reason_of(error)))
        return None
