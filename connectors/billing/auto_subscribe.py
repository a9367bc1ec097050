"""`AUTO_SUBSCRIBE`: an org that a customer is mapped to, and that never had a subscription, gets one."""

from connectors.billing.org_billing import OTHER_PLAN, OrgBilling
from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected
from connectors.lago.subscriptions import STATUSES
from schemas.customers import OrgRecord

_BILLING_TIME = "anniversary"


class AutoSubscriber:
    """Subscribes orgs.

    Several processes that do so at once make one subscription: its id is stored in the org's record before it is sent
    to Lago, and all of them use that id.
    """

    def __init__(self, lago: LagoClient, billing: OrgBilling) -> None:
        self._lago = lago
        self._billing = billing

    async def subscribe(self, org: OrgRecord, plan: str) -> None:
        """Subscribe the org to `plan`, with a customer of its name, or of its id, where Lago has none.

        An org that has, will have or had a subscription is left alone, because a person decided about it. So is an org
        that another request subscribes to another plan meanwhile.

        Raises:
            LagoRejected: code `plan_not_found`; `unsafe_id` and what else Lago refuses.
            LagoIntegrationError, Unavailable: Lago or Kafka does not answer; repeating is safe.
        """
        if await self._lago.subscriptions(org.org_id, STATUSES):
            return
        if await self._lago.plan(plan) is None:
            raise LagoRejected("http_404", "plan_not_found", status=404, code="plan_not_found")
        await self._billing.create_customer(org.org_id, org.name or org.org_id, org.email, None, None)
        try:
            await self._billing.subscribe(org.org_id, plan, _BILLING_TIME, None, only_new=True)
        except LagoRejected as error:
            if error.reason != OTHER_PLAN:
                raise
