"""A service that bills its orgs through Meterbridge: everything it needs, from its start to its end."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.lago.client import LagoClient, lago_http
from connectors.lago.errors import LagoRejected
from connectors.lago.limits import Limits
from connectors.lago.org_billing import OrgBilling
from connectors.lago.orgs import serve_with
from connectors.middleware.calls import record_with
from connectors.middleware.client import OrgClient
from connectors.middleware.recorder import FLUSH_S, MOST, Recorder

_CONNECTIONS = 8


class IdsElsewhere:
    """Meterbridge keeps subscription ids: a service of its own would make an org's second one."""

    async def recall(self, org_id: str) -> str | None:  # noqa: ARG002  # the protocol's
        """See `SubscriptionIds`: none is known here."""
        return None

    async def remember(self, org_id: str, proposed: str) -> str:  # noqa: ARG002
        """Raises: LagoRejected `ids_elsewhere`."""
        raise LagoRejected(
            "ids_elsewhere", "subscribe the org through Meterbridge: POST .../organizations/{org_id}/setup"
        )


@asynccontextmanager
async def org_billing_service(
    meterbridge_url: str,
    api_key: str,
    *,
    lago_url: str = "",
    lago_key: str = "",
    limits: Limits | None = None,
    timeout_s: float = 10.0,
    most: int = MOST,
    flush_s: float = FLUSH_S,
) -> AsyncIterator[Recorder]:
    """What middleware and the functions of `connectors.lago.orgs` work on inside; on leaving, what waits is stored.

    Args:
        meterbridge_url: of the management API; `api_key`: one of its keys.
        lago_url, lago_key: for what is read from Lago; without, only usage is recorded.
        limits: by default those that Meterbridge keeps.
        most: calls that wait in memory at most.
        flush_s: how long leaving may take.
    """
    async with lago_http(timeout_s, _CONNECTIONS) as ours, lago_http(timeout_s, _CONNECTIONS) as lagos:
        client = OrgClient(ours, meterbridge_url, api_key)
        if lago_url:
            lago = LagoClient(lagos, lago_url, lago_key)
            billing = OrgBilling(lago, IdsElsewhere(), client, now_us=lambda: time.time_ns() // 1000)
            serve_with(billing, client if limits is None else limits)
        recorder = Recorder(client, most=most)
        record_with(recorder)
        try:
            yield recorder
        finally:
            await recorder.close(flush_s)
            record_with(None)
            serve_with(None)
