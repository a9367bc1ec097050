"""Composes the access control of the management API in one process: API keys, users' tokens and the audit log."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from connectors.access.audit_tail import Tips
from connectors.access.audit_writer import Audit
from connectors.access.key_cache import KeyCache
from connectors.access.key_store import PostgresKeys
from connectors.api.authorizer import LAGO_PATHS, Authorizer, Credentials, FixedKeys
from connectors.api.keys import KeyHandlers
from connectors.config.connections import kafka_connection, needed, revealed
from connectors.config.settings import Settings
from connectors.http.client_address import ClientAddressPolicy, source_of
from connectors.http.endpoint import Endpoint, endpoints_of
from connectors.kafka.producer import RecordWriter
from connectors.processes.api_databases import ApiDatabases
from connectors.processes.provider_keys import ProviderKeys
from connectors.telemetry.metrics import Metrics
from schemas.topics import TopicNames
from streams.runtime import clock
from streams.runtime.clock import utc_now
from streams.runtime.kept_up import kept_up

if TYPE_CHECKING:
    from connectors.processes.user_tokens import UserTokens

_log = structlog.get_logger(__name__)


class ApiAccess:
    """The accepted credentials, the authorizer, and the audit log."""

    def __init__(
        self, settings: Settings, writer: RecordWriter, metrics: Metrics, databases: ApiDatabases | None
    ) -> None:
        self._settings = settings
        topic = TopicNames.with_prefix(settings.topic_prefix).audit
        self._chain_heads = Tips(kafka_connection(settings), topic, time.monotonic)
        self._audit = Audit(writer, topic, time.monotonic, clock.now_us, self._chain_heads.chain_head)
        self._database = None if databases is None else databases.access
        self._ring = (
            KeyCache(PostgresKeys(self._database), time.monotonic, utc_now) if self._database is not None else None
        )
        self._users: UserTokens | None = None
        origins = ClientAddressPolicy((), settings.trusted_proxies)
        self._provider_keys = ProviderKeys(
            settings, self._database, self._audit, metrics, lambda request: source_of(origins, request)
        )
        self.authorizer = Authorizer(
            self._kinds(),
            self._audit,
            origins,
            settings.api_rate_limit,
            time.monotonic,
            settings.authorize_rate_limit,
        )
        if settings.litellm_master_key is None:
            self._warn_of_no_master_key()

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints of API keys and of users' provider keys."""
        changed = self._ring.changed if self._ring is not None else lambda: None
        return [*endpoints_of(KeyHandlers(self._store, utc_now, changed)), *self._provider_keys.endpoints()]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """On exit, write everything that waits for the audit log and the key store.

        Raises:
            ConfigurationError: `PROVIDER_KEYS_SECRET` does not decrypt the stored provider keys.
        """
        async with AsyncExitStack() as stack:
            stack.callback(self._chain_heads.close)
            if self._users is not None:
                stack.push_async_callback(self._users.close)
            if self._ring is not None:
                stack.push_async_callback(self._ring.write_use)
            stack.push_async_callback(self._audit.write_waiting)
            await self._provider_keys.check()
            stack.push_async_callback(self._provider_keys.write_rest)
            yield

    async def work(self) -> None:
        """Write refused requests and the use of keys, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(kept_up("write_audit", self._audit.keep_writing))
            group.create_task(kept_up("write_provider_keys", self._provider_keys.work))
            if self._ring is not None:
                group.create_task(kept_up("write_key_use", self._ring.keep_writing_use))

    def _kinds(self) -> list[Credentials]:
        settings = self._settings
        fixed = FixedKeys(revealed(settings.litellm_master_key) or None, revealed(settings.lago_api_key) or None)
        kinds: list[Credentials] = [fixed]
        if self._ring is not None:
            kinds.append(self._ring)
        if settings.oidc_issuer is not None:
            # Loaded only here: the library of tokens takes 10 MiB of memory.
            from connectors.processes.user_tokens import UserTokens

            self._users = UserTokens(settings, settings.oidc_issuer)
            kinds.append(self._users.users)
        return kinds

    def _warn_of_no_master_key(self) -> None:
        """Log which credentials the API accepts without a master key."""
        accepted = {
            "a key of `meterbridge keys create`": self._ring is not None,
            "a user's token": self._users is not None,
            f"LAGO_API_KEY at {' and '.join(LAGO_PATHS)}": self._settings.lago_api_key is not None,
        }
        named = " or ".join(name for name, is_accepted in accepted.items() if is_accepted)
        if named:
            detail = f"LITELLM_MASTER_KEY is not set: all endpoints of the API answer 401, except to {named}"
            _log.warning("master_key_not_set", detail=detail)
        else:
            detail = "neither LITELLM_MASTER_KEY, Postgres, OIDC_ISSUER nor LAGO_API_KEY is set: every request is answered 401"
            _log.warning("management_closed", detail=detail)

    def _store(self) -> PostgresKeys:
        return PostgresKeys(needed(self._database, self._settings))
