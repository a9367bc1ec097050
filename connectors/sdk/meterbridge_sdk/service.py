"""Opens everything that a service needs to bill its orgs, from its start to its end."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

from meterbridge_sdk.client import MeterbridgeClient
from meterbridge_sdk.errors import BillingRejected
from meterbridge_sdk.limits import FixedLimits, OrgLimits
from meterbridge_sdk.recorder import FLUSH_TIMEOUT_S, MAX_WAITING, UsageRecorder, seconds

_CONNECTIONS: Final = 8
#: An idle connection is closed after so many seconds, before a server closes it.
_IDLE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class OrgBillingService:
    """The service object that the middleware and the functions of `meterbridge_sdk` use.

    Fields:
        client: Meterbridge's API.
        limits: subscriptions, usage and limits, each at most 10 s old.
        recorder: the events that the middleware records in the background.
    """

    client: MeterbridgeClient
    limits: OrgLimits
    recorder: UsageRecorder


_running: list[OrgBillingService] = []


@asynccontextmanager
async def org_billing_service(
    url: str,
    api_key: str,
    *,
    limits: FixedLimits | None = None,
    tokens_code: str = "ai_usage",
    timeout_s: float = 30.0,
    max_waiting: int = MAX_WAITING,
    flush_timeout_s: float = FLUSH_TIMEOUT_S,
) -> AsyncIterator[OrgBillingService]:
    """Open the service object for the middleware and the functions of `meterbridge_sdk`. At the exit, waiting events
    are recorded.

    Enter it once in each process, on the event loop that serves the requests.

    Args:
        url: of Meterbridge's API, `https://billing.example.com` for example.
        api_key: the API key's token; see `MeterbridgeClient` for its scopes.
        limits: the service's own limits; None = the limits that Meterbridge stores.
        tokens_code: Meterbridge's `LAGO_EVENT_CODE`: the metric that the limit `tokens` bounds.
        timeout_s: of one attempt of a request, seconds.
        max_waiting: maximum number of usage events that wait in memory.
        flush_timeout_s: time limit of the exit, seconds.

    Raises:
        TypeError, ValueError: an argument is not of its type or range; see also `MeterbridgeClient`.
    """
    if not seconds("timeout_s", timeout_s):
        raise ValueError("timeout_s must be more than 0")
    seconds("flush_timeout_s", flush_timeout_s)
    if limits is not None and not isinstance(limits, FixedLimits):
        raise TypeError("limits must be a FixedLimits or None")
    pool = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=_IDLE_S)
    authorities = httpx.create_ssl_context()
    # As before Python 3.13: certificates of private authorities often lack what RFC 5280 asks for.
    authorities.verify_flags &= ~ssl.VERIFY_X509_STRICT
    async with httpx.AsyncClient(timeout=timeout_s, limits=pool, verify=authorities) as http:
        client = MeterbridgeClient(http, url, api_key)
        recorder = UsageRecorder(client.send, max_waiting=max_waiting)
        service = OrgBillingService(client, OrgLimits(client, limits, tokens_code=tokens_code), recorder)
        _running.append(service)
        try:
            yield service
        finally:
            try:
                await recorder.close(flush_timeout_s)
            finally:
                _running.remove(service)


def running_recorder() -> UsageRecorder | None:
    """Return the recorder of the running service; None = no service is running."""
    return _running[-1].recorder if _running else None


def running_service() -> OrgBillingService:
    """Return the service that was opened last and has not ended.

    Raises:
        BillingRejected: `no_running_service`.
    """
    if not _running:
        raise BillingRejected(
            "no_running_service", "org_billing_service is not running: enter it when the service starts"
        )
    return _running[-1]
