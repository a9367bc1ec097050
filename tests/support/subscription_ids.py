"""Ids of subscriptions in memory."""


class InMemoryIds:
    """A `connectors.billing.subscription_id_store.SubscriptionIds` that is lost with the process. `all`: by org."""

    def __init__(self) -> None:
        self.all: dict[str, str] = {}

    async def recall(self, org_id: str) -> str | None:
        """The org's subscription id; None = it has none yet."""
        return self.all.get(org_id)

    async def remember(self, org_id: str, proposed: str) -> str:
        """Keep `proposed` unless the org has an id already; the org's id."""
        return self.all.setdefault(org_id, proposed)
