"""Discovers subscriptions in several Lago organisations. Each org is searched in its own organisation."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from connectors.billing.auto_subscribe import AutoSubscriber
from connectors.billing.subscription_discovery import SubscriptionDiscovery
from schemas.customers import MappingVersion
from schemas.organizations import DEFAULT


class RoutedDiscovery:
    """A `SubscriptionDiscovery` for all organisations. An org in an organisation that is not configured is not
    searched.

    Args:
        by_organization: the discovery of each organisation, including the default one, `""`.
        organization_of: returns the organisation of an org.
    """

    def __init__(
        self, by_organization: Mapping[str, SubscriptionDiscovery], organization_of: Callable[[str], str]
    ) -> None:
        self._by_organization = by_organization
        self._organization_of = organization_of

    def subscribe_by(self, organization: str, subscriber: AutoSubscriber) -> None:
        """See `SubscriptionDiscovery.subscribe_by`."""
        self._by_organization[organization].subscribe_by(subscriber)

    def knows(self, org_id: str, subscription: str = "") -> bool:
        """See `SubscriptionDiscovery.knows`."""
        return self._by_organization[DEFAULT].knows(org_id, subscription)

    async def is_unknown(self, org_id: str) -> bool | None:
        """See `SubscriptionDiscovery.is_unknown`."""
        own = self._of(org_id)
        return False if own is None else await own.is_unknown(org_id)

    def refused(self, org_id: str) -> str:
        """See `SubscriptionDiscovery.refused`."""
        own = self._of(org_id)
        return "" if own is None else own.refused(org_id)

    def mapped(self, version: MappingVersion) -> None:
        """See `SubscriptionDiscovery.mapped`."""
        if (own := self._of(version.lago_customer_id)) is not None:
            own.mapped(version)

    def named(self, org_id: str) -> None:
        """See `SubscriptionDiscovery.named`."""
        if (own := self._of(org_id)) is not None:
            own.named(org_id)

    async def learn(self, org_id: str, names: Iterable[str] = ()) -> bool:
        """See `SubscriptionDiscovery.learn`."""
        own = self._of(org_id)
        return own is None or await own.learn(org_id, names)

    async def learn_every(self, seconds: float) -> None:
        """See `SubscriptionDiscovery.learn_every`. An organisation that does not answer does not delay the others."""
        async with asyncio.TaskGroup() as group:
            for discovery in self._by_organization.values():
                group.create_task(discovery.learn_every(seconds))

    def _of(self, org_id: str) -> SubscriptionDiscovery | None:
        return self._by_organization.get(self._organization_of(org_id))
