"""Lago's plans, metrics and running subscriptions, read often and asked for seldom."""

from collections.abc import Callable

from connectors.billing.answer_cache import Cache
from connectors.lago.client import LagoClient
from connectors.lago.response_types import Metric, Plan, Subscription

#: How old an answer may be, in seconds. Only a subscription changes without our doing.
CATALOGUE_S, SUBSCRIPTIONS_S = 300.0, 15.0
MOST = 10_000


class LagoDirectory:
    """What Lago said lately.

    Args:
        clock: seconds, never backwards.
    """

    def __init__(self, lago: LagoClient, clock: Callable[[], float], most: int = MOST) -> None:
        self._lago = lago
        self._metrics: Cache[str, Metric] = Cache(clock, CATALOGUE_S, most)
        self._plans: Cache[str, Plan] = Cache(clock, CATALOGUE_S, most)
        self._subscriptions: Cache[str, tuple[Subscription, ...]] = Cache(clock, SUBSCRIPTIONS_S, most)

    async def metric(self, code: str) -> Metric | None:
        """A billable metric. Raises: LagoIntegrationError."""
        return await self._metrics.get(code, lambda: self._lago.metric(code))

    async def plan(self, code: str) -> Plan | None:
        """A plan with its charges. Raises: LagoIntegrationError."""
        return await self._plans.get(code, lambda: self._lago.plan(code))

    async def subscriptions(self, external_customer_id: str) -> tuple[Subscription, ...]:
        """The customer's active ones, latest beginning first. Raises: LagoIntegrationError."""

        async def ask() -> tuple[Subscription, ...] | None:
            return tuple(await self._lago.subscriptions(external_customer_id)) or None

        return await self._subscriptions.get(external_customer_id, ask) or ()

    def changed(self, external_customer_id: str) -> None:
        """The customer's subscriptions are not what they were."""
        self._subscriptions.forget(external_customer_id)

    def changed_catalogue(self, code: str) -> None:
        """The metric and the plan of this code are not what they were."""
        self._metrics.forget(code)
        self._plans.forget(code)
