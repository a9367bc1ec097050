"""Requests about subscriptions, by external id. A change of plan keeps the external id (docs/lago-behaviour.md, 5.2)."""

from collections.abc import Sequence

import msgspec

from connectors.lago.errors import LagoRejected
from connectors.lago.requests import NewSubscription, SubscriptionChange
from connectors.lago.responses import Subscription
from connectors.lago.transport import LagoTransport, Query, safe

ACTIVE = ("active",)
#: All statuses of Lago. Without a filter it lists only active subscriptions.
STATUSES = ("pending", "active", "terminated", "canceled", "incomplete")


class SubscriptionsApi(LagoTransport):
    """`/subscriptions`."""

    async def subscriptions(
        self,
        external_customer_id: str = "",
        statuses: Sequence[str] = ACTIVE,
        plan_code: str = "",
        external_id: str = "",
    ) -> list[Subscription]:
        """Return subscriptions, the latest start first; `""` = any customer, plan or id. Raises: LagoIntegrationError."""
        filters = {
            "external_customer_id": self.in_lago(external_customer_id),
            "plan_code": plan_code,
            "external_id": external_id,
        }
        query: Query = {"status[]": list(statuses), **{name: value for name, value in filters.items() if value}}
        listed = await self._every("subscriptions", "/subscriptions", "subscriptions", Subscription, query)
        return [self._of_org(subscription) for subscription in listed]

    async def subscription(self, external_id: str, status: str = "active") -> Subscription | None:
        """Return the newest subscription with this id and status; None if there is none. Raises: LagoIntegrationError."""
        path = f"/subscriptions/{safe(external_id)}?status={status}"
        found = await self._get_or_none("subscription", path, "subscription", Subscription)
        return None if found is None else self._of_org(found)

    async def create_subscription(self, new_subscription: NewSubscription) -> Subscription:
        """Create a subscription, or change the plan of the one with this id. A repeat changes nothing.

        A plan with the same or a higher price applies at once. A cheaper plan applies at the end of the period. Then
        the result is the active subscription with `next_plan_code`.

        Raises:
            LagoRejected: code `plan_not_found`; or another customer has an active subscription with this id.
            LagoIntegrationError
        """

        async def known() -> Subscription | None:
            found = await self.subscription(new_subscription.external_id)
            return (
                found
                if found is not None and found.external_customer_id == new_subscription.external_customer_id
                else None
            )

        customer = self.in_lago(new_subscription.external_customer_id)
        made = await self._created(
            "create_subscription",
            "/subscriptions",
            "subscription",
            Subscription,
            msgspec.structs.replace(new_subscription, external_customer_id=customer),
            "external_id",
            known,
        )
        return self._of_org(made)

    async def update_subscription(self, external_id: str, change: SubscriptionChange) -> Subscription | None:
        """Change the name or the end of an active subscription; return None if none is active. Raises:
        LagoIntegrationError.
        """
        try:
            changed = await self._one(
                "update_subscription",
                f"/subscriptions/{safe(external_id)}",
                "subscription",
                Subscription,
                verb="PUT",
                body=change,
            )
        except LagoRejected as error:
            if error.code != "subscription_not_found":
                raise
            return None
        return self._of_org(changed)

    async def terminate_subscription(self, external_id: str, *, pending: bool = False) -> Subscription | None:
        """End the active subscription now, or cancel the pending one. Return None if there is none, so repeating the
        call is safe.

        Raises:
            LagoIntegrationError
        """
        path = f"/subscriptions/{safe(external_id)}" + ("?status=pending" if pending else "")
        ended = await self._get_or_none("terminate_subscription", path, "subscription", Subscription, verb="DELETE")
        return None if ended is None else self._of_org(ended)

    def _of_org(self, subscription: Subscription) -> Subscription:
        """Replace the customer's id by the key of its org, unless that is done already."""
        customer = subscription.external_customer_id
        if not self.organization_name or customer is None or subscription.of_org:
            return subscription
        return msgspec.structs.replace(subscription, external_customer_id=self.named(customer), of_org=True)
