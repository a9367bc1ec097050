"""Implements `AUTO_SUBSCRIBE`: a mapped org that never had a subscription gets one."""

from connectors.billing.org_billing import OTHER_PLAN, OrgBilling
from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected, plan_not_found
from connectors.lago.subscriptions import STATUSES
from schemas.customers import OrgRecord

_BILLING_TIME = "anniversary"


class AutoSubscriber:
    """Subscribes orgs.

    If several processes subscribe an org at the same time, they make one subscription: its id is stored in the org's
    record before it is sent to Lago, and all processes use that id.
    """

    def __init__(self, lago: LagoClient, billing: OrgBilling) -> None:
        self._lago = lago
        self._billing = billing

    async def subscribe(self, org: OrgRecord, plan: str) -> None:
        """Subscribe the org to `plan`. If Lago has no customer for the org, one is created with the org's name or id.

        An org that has, will have or had a subscription is not changed, because a person decided about it. The same
        applies to an org that another request subscribes to another plan meanwhile.

        Raises:
            LagoRejected: code `plan_not_found`; `unsafe_id`; any other refusal of Lago.
            LagoIntegrationError, Unavailable: Lago or Kafka does not answer; repeating is safe.
        """
        if await self._lago.subscriptions(org.org_id, STATUSES):
            return
        if await self._lago.plan(plan) is None:
            raise plan_not_found(plan)
        await self._billing.create_customer(org.org_id, org.name or org.org_id, org.email, None, None)
        try:
            await self._billing.subscribe(org.org_id, plan, _BILLING_TIME, None, only_new=True)
        except LagoRejected as error:
            if error.reason != OTHER_PLAN:
                raise
