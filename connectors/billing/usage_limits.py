"""Compares the limits of an org's usage in a billing period with Lago's counts.

A limit is a whole number with a name: `tokens`, `requests`, `amount_cents`, or the code of a billable metric. An org's
own limits replace those of its plan. Usage without a limit is unlimited.
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

if TYPE_CHECKING:  # a service that only reads limits does not import Kafka
    from connectors.billing.org_billing import OrgBilling
    from connectors.billing.org_records import OrgRecords

#: Names of the limits on tokens (units of the usage metric), on API calls, and on money in the currency's smallest
#: unit.
TOKENS, REQUESTS, AMOUNT_CENTS = "tokens", "requests", "amount_cents"
#: How long Lago's counts and the limits are cached, seconds.
KEPT_S: Final = 10.0
#: Prefix of the keys of plan limits in `billing.orgs`; the plan's code follows. No id of an org begins with it.
PLAN_KEY: Final = "plan:"
MAX_NAMES: Final = 32
_MOST: Final = 10_000

_log = structlog.get_logger(__name__)
copy = msgspec.structs.replace


class LimitStore(Protocol):
    """Stores limits. Both methods return `{}` if there are no limits. Raises: Unavailable."""

    async def of_org(self, org_id: str) -> Mapping[str, int]:
        """Return the org's own limits."""

    async def of_plan(self, plan_code: str) -> Mapping[str, int]:
        """Return the limits of all orgs with the plan."""


class StaticLimits:
    """Limits that the service sets in its code; also for tests."""

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
    """Limits in `billing.orgs`: the limits of an org are in its record, those of a plan in a separate record, see
    `PLAN_KEY`.
    """

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
        """Replace all own limits of an org; `{}` removes them. They are durable on return.

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
    """The use of a limit in the current period; `used`: None = Lago does not count it on this plan."""

    limit: str
    used: Decimal | None
    most: int


class LimitReached(LagoRejected):
    """A limit is reached. The `reason` is `limit_reached`.

    Attributes:
        limit: name of the limit.
        used, most: the use in the current period, and the limit.
    """

    def __init__(self, limit: str, used: Decimal, most: int) -> None:
        super().__init__("limit_reached", f"{limit}: {used} of {most} used in this period")
        self.limit, self.used, self.most = limit, used, most


class UsageLimits:
    """Compares limits with Lago's counts. Both are cached for at most `KEPT_S`. There is one request at a time to Lago
    for each org.

    Args:
        counted: returns the subscriptions and the usage of orgs.
        tokens_code, requests_code: codes of the metrics whose units the limits `tokens` and `requests` bound.
        clock: monotonic, seconds.
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
        """Return the org's limits by name. The org's own limits replace those of its plan. Raises:
        LagoIntegrationError.
        """
        async with self._asking.setdefault(org_id, asyncio.Lock()):
            return dict(await self._known.get(org_id, lambda: self._merged(org_id)) or {})

    async def check(self, org_id: str) -> tuple[UsedLimit, ...]:
        """Return every limit of the org with its use, if no limit is reached.

        A limit for which the plan has no charge cannot be counted: its `used` is None, and it is logged once.

        Raises:
            LimitReached: for the first limit that is reached.
            LagoRejected: `no_active_subscription`.
            LagoIntegrationError: the use is unknown now. The caller decides whether to serve the call.
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
    """Return the use of a limit; None = the plan charges no metric that counts it.

    Args:
        name: name of the limit.
        codes: metric codes by name of the limit. The name of any other limit is the code of its metric.
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
    """Check limits, and return a copy.

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
    """Return whether a key of `billing.orgs` belongs to a plan, and not to an org."""
    return key.startswith(PLAN_KEY)
