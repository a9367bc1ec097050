"""Reads the event store and the version of Lago every hour. They decide whether an event may be sent again."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from connectors.config.addresses import lago_address
from connectors.lago.client import LagoClient, LagoIntegrationError
from streams.core.delivery.verdicts import batches_are_whole

log = structlog.get_logger(__name__)

POSTGRES, CLICKHOUSE = "postgres", "clickhouse"
ASKED_S = 3600.0
AGAIN_S = 15.0
#: Statuses after which the request is not repeated: the key may not read the organization, or Lago has no such
#: resource.
_NEVER_TOLD = frozenset({"http_403", "http_404", "http_405"})


class OrganizationInfo:
    """Information about the organization of our API key.

    Attributes:
        store: `postgres` or `clickhouse`; `""` until Lago has answered.
        version: Lago's version; `""` until it has answered.
    """

    def __init__(
        self, lago: LagoClient, clickhouse_dedup: bool, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.store = ""
        self.version = ""
        self._lago = lago
        self._dedup = clickhouse_dedup
        self._sleep = sleep
        self._unknown = ""

    def resend_is_safe(self) -> bool:
        """Return whether an event that is sent twice is billed once. While the store is unknown it is False, so that
        the event is looked up first.
        """
        return self.store == POSTGRES or self._dedup

    def too_old(self) -> bool:
        """Return whether this version of Lago may store a part of a batch that it refuses."""
        return not batches_are_whole(self.version)

    async def watch(self) -> None:
        """Ask Lago until cancelled, every hour, or every 15 s while it does not answer."""
        while True:
            known = await self._ask_store()
            known = await self._ask_version() and known
            await self._sleep(ASKED_S if known else AGAIN_S)

    async def _ask_store(self) -> bool:
        try:
            store = (await self._lago.organization()).events_store or POSTGRES
        except LagoIntegrationError as error:
            if error.reason not in _NEVER_TOLD:
                self._log_once("event_store_unknown", error.reason)
                return False
            store = self.store or POSTGRES
            self._log_once("event_store_assumed", error.reason, store=store)
        else:
            self._unknown = ""
        if store != self.store and store == CLICKHOUSE and not self._dedup:
            log.warning("event_store_without_deduplication", store=store)
        self.store = store
        return True

    def _log_once(self, event: str, reason: str, **more: str) -> None:
        """Log an event once per reason, until Lago answers."""
        if reason != self._unknown:
            self._unknown = reason
            log.warning(event, reason=reason, address=lago_address(self._lago.root), **more)

    async def _ask_version(self) -> bool:
        try:
            version = await self._lago.version()
        except LagoIntegrationError:
            return bool(self.version)  # a proxy may hide /health; this alone must not cause a request every few seconds
        if version != self.version and not batches_are_whole(version):
            log.warning("lago_too_old", version=version, needed="v1.39.0")
        self.version = version
        return True
