"""`AUTO_SUBSCRIBE`: an org that somebody is mapped to, and that never had a subscription, gets one."""

from connectors.billing.org_billing import OTHER_PLAN, OrgBilling
from connectors.lago.client import LagoClient
from connectors.lago.errors import LagoRejected
from connectors.lago.subscriptions import STATUSES
from schemas.customers import OrgRecord

_BILLING_TIME = "anniversary"


class AutoSubscriber:
    """Subscribes orgs.

    However many processes do so at once, the org has one subscription: its id is in the org's record before Lago
    hears of it, and all of them use that one.
    """

    def __init__(self, lago: LagoClient, billing: OrgBilling) -> None:
        self._lago = lago
        self._billing = billing

    async def subscribe(self, org: OrgRecord, plan: str) -> None:
        """Subscribe the org to `plan`, with a customer of its name, or of its id, where Lago has none.

        One that has a subscription, will have, or had one is left alone: whoever ended it meant it. So is one that
        somebody subscribes to another plan meanwhile: that one was asked for.

        Raises:
            LagoRejected: code `plan_not_found`; `unsafe_id` and what else Lago refuses.
            LagoIntegrationError, Unavailable: later, perhaps.
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
