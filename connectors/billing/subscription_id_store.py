"""The external id of an org's subscription: made once, stored before it is first used, and opaque from then on.

A second id for the same org would be a second subscription, both billed; so an id is never made again for an org,
whatever becomes of its plan (docs/orgs.md).
"""

from typing import Protocol


class SubscriptionIds(Protocol):
    """Where an org's id is kept."""

    async def recall(self, org_id: str) -> str | None:
        """The org's id; None while it has none."""

    async def remember(self, org_id: str, proposed: str) -> str:
        """The org's id: `proposed`, durable on return, unless it has one already. Concurrent calls get one answer."""


class InMemoryIds:
    """For tests, and for programs that keep ids elsewhere. They end with the process."""

    def __init__(self) -> None:
        self.all: dict[str, str] = {}

    async def recall(self, org_id: str) -> str | None:
        """See `SubscriptionIds`."""
        return self.all.get(org_id)

    async def remember(self, org_id: str, proposed: str) -> str:
        """See `SubscriptionIds`."""
        return self.all.setdefault(org_id, proposed)
