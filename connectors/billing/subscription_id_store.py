"""Stores the external id of an org's subscription: made once, and stored before its first use.

A second id for an org would be a second subscription, and Lago would bill both. So an org never gets a second id, also
when its plan changes (docs/orgs.md).
"""

from typing import Protocol


class SubscriptionIds(Protocol):
    """Stores one subscription id for each org."""

    async def recall(self, org_id: str) -> str | None:
        """The org's subscription id; None = it has none yet."""

    async def remember(self, org_id: str, proposed: str) -> str:
        """Store `proposed` unless the org has an id already; the org's id, durable on return. Concurrent calls get one id."""
