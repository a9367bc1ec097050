"""Subscriptions: by external id, which a change of plan keeps (docs/lago-behaviour.md, 5.2)."""

from collections.abc import Sequence

from connectors.lago.errors import LagoRejected
from connectors.lago.requests import NewSubscription, SubscriptionChange
from connectors.lago.response_types import Subscription
from connectors.lago.transport import LagoTransport, Query, safe

ACTIVE = ("active",)
#: All that Lago has; unasked it lists the active ones alone.
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
        """Of one customer or of all, of one id or of all, latest beginning first. Raises: LagoIntegrationError."""
        filters = {
            "external_customer_id": external_customer_id,
            "plan_code": plan_code,
            "external_id": external_id,
        }
        query: Query = {"status[]": list(statuses), **{name: value for name, value in filters.items() if value}}
        return await self._every("subscriptions", "/subscriptions", "subscriptions", Subscription, query)

    async def subscription(self, external_id: str, status: str = "active") -> Subscription | None:
        """The newest with this id and status; None where there is none. Raises: LagoIntegrationError."""
        path = f"/subscriptions/{safe(external_id)}?status={status}"
        return await self._found("subscription", path, "subscription", Subscription)

    async def create_subscription(self, wanted: NewSubscription) -> Subscription:
        """Create one, or change the plan of the one that has this id; the same twice is the same once.

        A dearer or equally dear plan applies at once; a cheaper one waits for the period's end: what is answered is
        then still the running one, with `next_plan_code`.

        Raises:
            LagoRejected: code `plan_not_found`; the id is an active one of another customer.
            LagoIntegrationError
        """
        try:
            return await self._one(
                "create_subscription", "/subscriptions", "subscription", Subscription, verb="POST", body=wanted
            )
        except LagoRejected as error:
            if not error.says("external_id", "value_already_exist"):
                raise
            known = await self.subscription(wanted.external_id)
            if known is None or known.external_customer_id != wanted.external_customer_id:
                raise
            return known

    async def update_subscription(self, external_id: str, change: SubscriptionChange) -> Subscription | None:
        """Its name or its end; None where none is active. Raises: LagoIntegrationError."""
        try:
            return await self._one(
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

    async def terminate_subscription(self, external_id: str, *, pending: bool = False) -> Subscription | None:
        """End the active one now, or cancel the pending one; None where there is none, so again does nothing.

        Raises:
            LagoIntegrationError
        """
        path = f"/subscriptions/{safe(external_id)}" + ("?status=pending" if pending else "")
        return await self._found("terminate_subscription", path, "subscription", Subscription, verb="DELETE")
