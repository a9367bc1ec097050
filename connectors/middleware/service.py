"""A service that bills its orgs through Meterbridge: everything it needs, from its start to its end."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.lago.alone import LagoHasThem
from connectors.lago.client import LagoClient, lago_http
from connectors.lago.errors import LagoRejected, LagoUnavailable
from connectors.lago.limits import Limits
from connectors.lago.org_billing import OTHER_PLAN, OrgBilling
from connectors.lago.orgs import serve_with
from connectors.lago.shapes import Subscription
from connectors.middleware.calls import record_with
from connectors.middleware.client import OrgClient
from connectors.middleware.recorder import FLUSH_S, MOST, Recorder

_CONNECTIONS = 8


class SubscribedElsewhere(OrgBilling):
    """Meterbridge keeps subscription ids, and an id made here would be an org's second one: it subscribes orgs for us."""

    def __init__(self, lago: LagoClient, client: OrgClient) -> None:
        super().__init__(lago, LagoHasThem(), client, now_us=lambda: time.time_ns() // 1000)
        self._client = client

    async def sign_up(
        self, org_id: str, plan_code: str, name: str, email: str, user_id: str | None, billing_time: str
    ) -> Subscription:
        """See `OrgBilling.sign_up`."""
        wanted = {"org_name": name, "email": email, "user_id": user_id or ""}
        return await self._set_up(org_id, plan_code, {**wanted, "billing_time": billing_time})

    async def subscribe(
        self, org_id: str, plan_code: str, billing_time: str, subscription_at: str | None, *, only_new: bool = False
    ) -> Subscription:
        """See `OrgBilling.subscribe`."""
        moment = {} if subscription_at is None else {"subscription_at": subscription_at}
        return await self._set_up(org_id, plan_code, {"billing_time": billing_time, **moment}, only_new=only_new)

    async def _set_up(
        self, org_id: str, plan_code: str, wanted: dict[str, str], *, only_new: bool = False
    ) -> Subscription:
        try:
            external_id = await self._client.set_up(org_id, {"plan_code": plan_code, **wanted})
        except LagoRejected as error:
            if error.reason != OTHER_PLAN or only_new:
                raise
            external_id = await self._client.change_plan(org_id, plan_code)
        finally:
            self.directory.changed(org_id)
        made = await self.lago.subscription(external_id) or await self.lago.subscription(external_id, "pending")
        if made is None:
            raise LagoUnavailable("bad_answer", "Meterbridge subscribed the org in another Lago than this one")
        return made


@asynccontextmanager
async def org_billing_service(
    meterbridge_url: str,
    api_key: str,
    *,
    lago_url: str = "",
    lago_key: str = "",
    limits: Limits | None = None,
    timeout_s: float = 30.0,
    most: int = MOST,
    flush_s: float = FLUSH_S,
) -> AsyncIterator[Recorder]:
    """What middleware and the functions of `connectors.lago.orgs` work on inside; on leaving, what waits is stored.

    Args:
        meterbridge_url: of the management API; `api_key`: one of its keys, see `OrgClient`.
        lago_url, lago_key: for what is read from Lago; without, the functions read `LAGO_API_URL` and `LAGO_API_KEY`.
        timeout_s: of one request.
        limits: by default those that Meterbridge keeps.
        most: calls that wait in memory at most.
        flush_s: how long leaving may take.
    """
    async with lago_http(timeout_s, _CONNECTIONS) as ours, lago_http(timeout_s, _CONNECTIONS) as lagos:
        client = OrgClient(ours, meterbridge_url, api_key)
        if lago_url:
            lago = LagoClient(lagos, lago_url, lago_key)
            serve_with(SubscribedElsewhere(lago, client), client if limits is None else limits)
        recorder = Recorder(client, most=most)
        record_with(recorder)
        try:
            yield recorder
        finally:
            await recorder.close(flush_s)
            record_with(None)
            serve_with(None)
