"""Stores the external id of an org's subscription. It is made once, and stored before its first use.

With a second id the org would have a second subscription, and Lago would bill both. So an org never gets a second id,
even if its plan changes (docs/orgs.md).
"""

from typing import Protocol


class SubscriptionIds(Protocol):
    """Stores one subscription id for each org."""

    async def recall(self, org_id: str) -> str | None:
        """Return the org's subscription id; None = it has none yet."""

    async def remember(self, org_id: str, proposed: str) -> str:
        """Store `proposed` unless the org has an id already; return the org's id, which is durable then. Concurrent
        calls get the same id.
        """


class InMemoryIds:
    """Keeps ids in memory, for tests and examples. They are lost with the process."""

    def __init__(self) -> None:
        self.all: dict[str, str] = {}

    async def recall(self, org_id: str) -> str | None:
        """See `SubscriptionIds`."""
        return self.all.get(org_id)

    async def remember(self, org_id: str, proposed: str) -> str:
        """See `SubscriptionIds`."""
        return self.all.setdefault(org_id, proposed)
