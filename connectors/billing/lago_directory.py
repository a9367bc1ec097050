"""A cache of Lago's plans, metrics and running subscriptions."""

from collections.abc import Callable

from connectors.billing.answer_cache import Cache
from connectors.lago.client import LagoClient
from connectors.lago.responses import Metric, Plan, Subscription

#: How long a response is cached, seconds. Subscriptions also change without a request of ours.
CATALOGUE_S, SUBSCRIPTIONS_S = 300.0, 15.0
MOST = 10_000


class LagoDirectory:
    """Caches Lago's responses.

    Args:
        clock: monotonic, seconds.
    """

    def __init__(self, lago: LagoClient, clock: Callable[[], float]) -> None:
        self._lago = lago
        self._metrics: Cache[str, Metric] = Cache(clock, CATALOGUE_S, MOST)
        self._plans: Cache[str, Plan] = Cache(clock, CATALOGUE_S, MOST)
        self._subscriptions: Cache[str, tuple[Subscription, ...]] = Cache(clock, SUBSCRIPTIONS_S, MOST)

    async def metric(self, code: str) -> Metric | None:
        """Return a billable metric; None = there is none. Raises: LagoIntegrationError."""
        return await self._metrics.get(code, lambda: self._lago.metric(code))

    async def plan(self, code: str) -> Plan | None:
        """Return a plan with its charges; None = there is none. Raises: LagoIntegrationError."""
        return await self._plans.get(code, lambda: self._lago.plan(code))

    async def subscriptions(self, external_customer_id: str) -> tuple[Subscription, ...]:
        """Return the customer's active subscriptions, the latest first. Raises: LagoIntegrationError."""

        async def ask() -> tuple[Subscription, ...] | None:
            return tuple(await self._lago.subscriptions(external_customer_id)) or None

        return await self._subscriptions.get(external_customer_id, ask) or ()

    def changed(self, external_customer_id: str) -> None:
        """Forget the customer's subscriptions, because they have changed."""
        self._subscriptions.forget(external_customer_id)

    def changed_catalogue(self, code: str) -> None:
        """Forget the metric and the plan of this code, because they have changed."""
        self._metrics.forget(code)
        self._plans.forget(code)
