"""Limits of an org's usage in a billing period, compared with what Lago counts.

A limit is a whole number with a name: `tokens`, `requests`, `amount_cents`, or a billable metric's code. An org's own
limits replace those of its plan. Usage without a limit is not bounded.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

import msgspec
import structlog

from connectors.billing.answer_cache import Cache
from connectors.lago.errors import LagoIntegrationError, LagoRejected, LagoUnavailable
from connectors.lago.responses import CustomerUsage
from schemas.errors import Rejected, Unavailable

if TYPE_CHECKING:  # a service that only asks about limits loads no Kafka
    from connectors.billing.org_billing import OrgBilling
    from connectors.billing.org_records import OrgRecords

#: Limits of the usage metric's units, which are tokens; of API calls; of money in the currency's smallest unit.
TOKENS, REQUESTS, AMOUNT_CENTS = "tokens", "requests", "amount_cents"
#: Age at which Lago's count and the limits are read again, seconds.
KEPT_S: Final = 10.0
#: A plan's limits are the record of `billing.orgs` whose key is this and the plan's code. No org's id begins with it.
PLAN_KEY: Final = "plan:"
MAX_NAMES: Final = 32
_MOST: Final = 10_000

_log = structlog.get_logger(__name__)
copy = msgspec.structs.replace


class LimitStore(Protocol):
    """Stores limits. Both methods return `{}` for no limits. Raises: Unavailable."""

    async def of_org(self, org_id: str) -> Mapping[str, int]:
        """The org's own limits."""

    async def of_plan(self, plan_code: str) -> Mapping[str, int]:
        """The limits of all orgs on the plan."""


class StaticLimits:
    """Limits that the service itself chooses; also for tests."""

    def __init__(
        self, plans: Mapping[str, Mapping[str, int]] | None = None, orgs: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        self._plans = {code: checked(limits) for code, limits in (plans or {}).items()}
        self._orgs = {org_id: checked(limits) for org_id, limits in (orgs or {}).items()}

    async def of_org(self, org_id: str) -> Mapping[str, int]:
        """See `LimitStore`."""
        return self._orgs.get(org_id, {})

    async def of_plan(self, plan_code: str) -> Mapping[str, int]:
        """See `LimitStore`."""
        return self._plans.get(plan_code, {})


class RecordLimits:
    """Limits in `billing.orgs`: an org's in its record, a plan's in a record of its own, see `PLAN_KEY`."""

    def __init__(self, records: "OrgRecords") -> None:
        self._records = records

    async def of_org(self, org_id: str) -> Mapping[str, int]:
        """See `LimitStore`."""
        record = await self._records.get(org_id)
        return {} if record is None else record.limits

    async def of_plan(self, plan_code: str) -> Mapping[str, int]:
        """See `LimitStore`."""
        return await self.of_org(PLAN_KEY + plan_code)

    async def set_org(self, org_id: str, limits: Mapping[str, int]) -> Mapping[str, int]:
        """Replace all of an org's own limits; `{}` removes them. Durable on return.

        Raises:
            Rejected: `bad_limit`.
            Unavailable
        """
        own_limits = checked(limits)
        return (await self._records.change(org_id, lambda known: copy(known, limits=own_limits))).limits

    async def set_plan(self, plan_code: str, limits: Mapping[str, int]) -> Mapping[str, int]:
        """Replace all limits of a plan; see `set_org`."""
        return await self.set_org(PLAN_KEY + plan_code, limits)


class UsedLimit(NamedTuple):
    """How much of a limit is used in the current period; `used` None = Lago does not count it on this plan."""

    limit: str
    used: Decimal | None
    most: int


class LimitReached(LagoRejected):
    """A limit is used up. Its `reason` is `limit_reached`.

    Attributes:
        limit: the limit's name.
        used, most: what is used in the current period, and the limit.
    """

    def __init__(self, limit: str, used: Decimal, most: int) -> None:
        super().__init__("limit_reached", f"{limit}: {used} of {most} used in this period")
        self.limit, self.used, self.most = limit, used, most


class UsageLimits:
    """Compares limits with what Lago counts, both at most `KEPT_S` old. For one org Lago gets one request at a time.

    Args:
        counted: gives the orgs' subscriptions and usage.
        tokens_code, requests_code: codes of the metrics whose units the limits `tokens` and `requests` bound.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        counted: "OrgBilling",
        limits: LimitStore,
        *,
        tokens_code: str = "ai_usage",
        requests_code: str = "api_call",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counted = counted
        self._limits = limits
        self._codes = {TOKENS: tokens_code, REQUESTS: requests_code}
        self._known: Cache[str, dict[str, int]] = Cache(clock, KEPT_S, _MOST)
        self._usage: Cache[str, CustomerUsage] = Cache(clock, KEPT_S, _MOST)
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._logged: set[tuple[str, str]] = set()

    async def of(self, org_id: str) -> dict[str, int]:
        """The org's limits by name: its plan's, replaced by its own. Raises: LagoIntegrationError."""
        async with self._asking.setdefault(org_id, asyncio.Lock()):
            return dict(await self._known.get(org_id, lambda: self._merged(org_id)) or {})

    async def check(self, org_id: str) -> tuple[UsedLimit, ...]:
        """Every limit of the org with its use; none of them is used up.

        A limit for which the plan has no charge cannot be counted: its `used` is None, and it is logged once.

        Raises:
            LimitReached: the first limit that is used up.
            LagoRejected: `no_active_subscription`.
            LagoIntegrationError: the use is not known now. The caller decides whether the call is served.
        """
        limits = await self.of(org_id)
        async with self._asking.setdefault(org_id, asyncio.Lock()):
            usage = await self._usage.get(org_id, lambda: self._counted.usage(org_id))
        if usage is None:
            raise LagoRejected("no_active_subscription", "the org has no active subscription")
        uses = tuple(UsedLimit(name, used_of(usage, name, self._codes), most) for name, most in sorted(limits.items()))
        for use in uses:
            if use.used is None:
                self._log_once(org_id, use.limit)
            elif use.used >= use.most:
                raise LimitReached(use.limit, use.used, use.most)
        return uses

    async def _merged(self, org_id: str) -> dict[str, int]:
        running = await self._counted.subscription(org_id)
        plan = running.plan_code if running is not None else None
        try:
            of_plan = await self._limits.of_plan(plan) if plan else {}
            return {**of_plan, **await self._limits.of_org(org_id)}
        except LagoIntegrationError:
            raise
        except Unavailable as error:
            raise LagoUnavailable(error.reason, error.detail) from error

    def _log_once(self, org_id: str, name: str) -> None:
        if (org_id, name) not in self._logged and len(self._logged) < _MOST:
            self._logged.add((org_id, name))
            _log.warning("limit_not_counted", org=org_id, limit=name, detail="no charge of its plan is on this metric")


def used_of(usage: CustomerUsage, name: str, codes: Mapping[str, str]) -> Decimal | None:
    """How much of a limit is used; None = the plan charges no metric that counts it.

    Args:
        name: of the limit.
        codes: metric codes by the name of the limit; the name of any other limit is its metric's code.
    """
    if name == AMOUNT_CENTS:
        return Decimal(usage.amount_cents)
    code = codes.get(name, name)
    counts = [charge.units for charge in usage.charges_usage if charge.billable_metric.code == code]
    try:
        return sum((Decimal(units) for units in counts), Decimal(0)) if counts else None
    except InvalidOperation:
        return None


def checked(limits: Mapping[str, int]) -> dict[str, int]:
    """A copy of valid limits.

    Raises:
        Rejected: `bad_limit`: an empty or long name, a number below 0, or more than `MAX_NAMES`.
    """
    if len(limits) > MAX_NAMES:
        raise Rejected("bad_limit", f"more than {MAX_NAMES} limits")
    for name, most in limits.items():
        if not 1 <= len(name) <= 255 or not name.isprintable() or isinstance(most, bool) or not 0 <= most < 1 << 63:
            raise Rejected("bad_limit", "a limit is a name of 1 to 255 characters and a whole number from 0")
    return dict(limits)


def is_plan(key: str) -> bool:
    """Whether a key of `billing.orgs` is a plan's, not an org's."""
    return key.startswith(PLAN_KEY)
