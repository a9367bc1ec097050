"""Compares the limits of an org with the usage that Lago counts in the running billing period.

A limit is a whole number with a name: `tokens`, `requests`, `amount_cents`, or a billable metric's code. An org's own
limits take precedence over the limits of its plan. Usage without a limit is not bounded.
"""

import logging
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple

from meterbridge_sdk.cache import MAX_ENTRIES, TimedCache
from meterbridge_sdk.client import MeterbridgeClient
from meterbridge_sdk.errors import BillingRejected, UsageLimitReached
from meterbridge_sdk.logs import log_event
from meterbridge_sdk.responses import CurrentUsage, OrgSubscription
from meterbridge_sdk.wire import AMOUNT_CENTS, API_CALL, REQUESTS, TOKENS


class LimitUse(NamedTuple):
    """The use of a limit.

    Fields:
        limit: its name.
        used: in the running billing period; None = the org's plan has no charge on the metric, so Lago does not count it.
        maximum: the limit's value.
    """

    limit: str
    used: Decimal | None
    maximum: int


class FixedLimits:
    """Limits that the service chooses itself, instead of the limits that Meterbridge stores.

    Args:
        plans: limits by plan code, each a mapping of name to value.
        orgs: limits by org id; they take precedence over the limits of the org's plan.

    Raises:
        TypeError: an argument is no mapping of mappings, or a limit is no int.
        ValueError: a limit is negative.
    """

    def __init__(
        self, plans: Mapping[str, Mapping[str, int]] | None = None, orgs: Mapping[str, Mapping[str, int]] | None = None
    ) -> None:
        for argument, owners in (("plans", plans), ("orgs", orgs)):
            _check_limits(argument, owners)
        self._plans = {code: dict(limits) for code, limits in (plans or {}).items()}
        self._orgs = {org_id: dict(limits) for org_id, limits in (orgs or {}).items()}

    def of(self, org_id: str, plan_code: str | None) -> dict[str, int]:
        """Return the limits of an org on a plan, by name."""
        return {**self._plans.get(plan_code or "", {}), **self._orgs.get(org_id, {})}


def _check_limits(argument: str, owners: object) -> None:
    if not isinstance(owners, Mapping | None):
        raise TypeError(f"{argument} must be a mapping")
    for owner, limits in (owners or {}).items():
        if not isinstance(limits, Mapping):
            raise TypeError(f"{argument}[{owner!r}] must be a mapping of a limit's name to an int")
        for name, maximum in limits.items():
            if type(maximum) is not int:
                raise TypeError(f"{argument}[{owner!r}][{name!r}] must be an int")
            if maximum < 0:
                raise ValueError(f"{argument}[{owner!r}][{name!r}] must be 0 or more")


class OrgLimits:
    """Subscriptions, usage and limits of orgs, each answer at most 10 s old.

    For one org, only one request at a time is sent to Meterbridge; all waiting calls of the service share its answer.

    Args:
        client: of Meterbridge's API.
        fixed: the service's own limits; None = the limits that Meterbridge stores.
        tokens_code: code of the metric whose units the limit `tokens` bounds: Meterbridge's `LAGO_EVENT_CODE`.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        client: MeterbridgeClient,
        fixed: FixedLimits | None = None,
        *,
        tokens_code: str = "ai_usage",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._fixed = fixed
        self._codes = {TOKENS: tokens_code, REQUESTS: API_CALL}
        self._subscriptions: TimedCache[OrgSubscription] = TimedCache(clock)
        self._limits: TimedCache[dict[str, int]] = TimedCache(clock)
        self._usage: TimedCache[CurrentUsage] = TimedCache(clock)
        self._logged: set[tuple[str, str]] = set()

    async def is_active(self, org_id: str) -> bool:
        """Return whether the org has an active subscription. If an org has none, the next call asks again.

        Raises:
            BillingError: the answer is not known.
        """
        return await self._subscriptions.get(org_id, lambda: self._active(org_id)) is not None

    async def of(self, org_id: str) -> dict[str, int]:
        """Return the org's limits by name; `{}` = none. Raises: BillingError: the answer is not known."""
        return dict(await self._limits.get(org_id, lambda: self._current_limits(org_id)) or {})

    async def check(self, org_id: str) -> tuple[LimitUse, ...]:
        """Return every limit of the org with its use; something is left of each.

        A limit that Lago does not count is logged once, as `limit_not_counted`.

        Raises:
            UsageLimitReached: nothing is left of a limit.
            BillingRejected: `no_active_subscription`: there is no billing period to count in.
            BillingError: the answer is not known. The service decides whether to serve the call.
        """
        limits = await self.of(org_id)
        usage = await self._usage.get(org_id, lambda: self._client.get_current_usage(org_id))
        if usage is None:
            raise BillingRejected("no_active_subscription", "the org has no active subscription")
        uses = tuple(LimitUse(name, self._used(usage, name), maximum) for name, maximum in sorted(limits.items()))
        for use in uses:
            if use.used is None:
                self._log_not_counted(org_id, use.limit)
            elif use.used >= use.maximum:
                raise UsageLimitReached(use.limit, use.used, use.maximum)
        return uses

    def changed(self, org_id: str) -> None:
        """Forget all kept answers about the org, because its subscription was changed."""
        for cache in (self._subscriptions, self._limits, self._usage):
            cache.forget(org_id)

    async def _active(self, org_id: str) -> OrgSubscription | None:
        subscription = await self._client.get_subscription(org_id)
        return subscription if subscription is not None and subscription.status == "active" else None

    async def _current_limits(self, org_id: str) -> dict[str, int]:
        if self._fixed is None:
            return await self._client.get_limits(org_id)
        subscription = await self._subscriptions.get(org_id, lambda: self._active(org_id))
        return self._fixed.of(org_id, None if subscription is None else subscription.plan_code)

    def _used(self, usage: CurrentUsage, name: str) -> Decimal | None:
        if name == AMOUNT_CENTS:
            return Decimal(usage.amount_cents)
        return usage.units.get(self._codes.get(name, name))

    def _log_not_counted(self, org_id: str, name: str) -> None:
        if (org_id, name) not in self._logged and len(self._logged) < MAX_ENTRIES:
            self._logged.add((org_id, name))
            log_event(logging.WARNING, "limit_not_counted", org_id=org_id, limit=name)
