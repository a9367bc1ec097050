"""Composes the provider keys of one process: the table, the cipher, the audit lines, the counts and the metrics."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog
from aiohttp import web

from connectors.access.audit_writer import Attempt, Audit
from connectors.access.provider_keys.cipher import KeyCipher, wrong_secret
from connectors.access.provider_keys.keys import ProviderKey
from connectors.access.provider_keys.store import PostgresProviderKeys
from connectors.access.provider_keys.use import DecryptionLog, Decryptions, UseCounter
from connectors.api.provider_keys import ProviderKeyHandlers
from connectors.config.connections import all_revealed, needed
from connectors.config.settings import Settings
from connectors.http.endpoint import Endpoint, endpoints_of
from connectors.postgres.pool import Database
from connectors.telemetry.metrics import Metrics
from schemas.errors import ConfigurationError, MeterbridgeError, Unavailable
from streams.runtime.clock import utc_now

ACTION: Final = "provider_keys.decrypt"
#: Periods in seconds: between two writes of the sums of uses; between two updates of the metrics; for the first answer
#: of Postgres.
_WRITE_S, _LOOK_S, _START_S = 10.0, 60.0, 5.0

_log = structlog.get_logger(__name__)


class ProviderKeys:
    """The provider keys of one process. It is `connectors.api.provider_keys.KeyUses`.

    Args:
        database: None = the deployment has no Postgres.
        address: the client's address, for the audit log.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database | None,
        audit: Audit,
        metrics: Metrics,
        address: Callable[[web.Request], str],
    ) -> None:
        self._settings = settings
        self._database = database
        self._audit = audit
        self._metrics = metrics
        self._address = address
        secrets = all_revealed(settings.provider_keys_secret)
        self._keys = KeyCipher(secrets) if secrets else None
        self._log = DecryptionLog(self._write_line, time.monotonic)
        self._counter = UseCounter()

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints below `/api/v1/provider-keys`."""
        after = timedelta(days=self._settings.provider_keys_rotation_days)
        return endpoints_of(ProviderKeyHandlers(self._store, self._cipher, self, after, utc_now, self._address))

    async def check(self) -> None:
        """Check that the secrets fit the stored keys; if Postgres does not answer now, each request checks it.

        Raises:
            ConfigurationError: keys are stored under a secret that is not configured.
        """
        if self._keys is None or self._database is None:
            return
        try:
            async with asyncio.timeout(_START_S):
                totals = await self._store().totals(utc_now())
        except (MeterbridgeError, TimeoutError) as error:
            _log.warning("provider_keys_unchecked", reason=str(error) or "timeout")
            return
        if any(secret.secret_id not in self._keys.secret_ids for secret in totals):
            raise ConfigurationError("PROVIDER_KEYS_SECRET", wrong_secret().detail)

    async def giving(self, actor: str, key: ProviderKey, address: str) -> None:
        """See `KeyUses`."""
        await self._log.giving(actor, key, address)
        self._counter.used(key.key_id, utc_now())

    def outcome(self, outcome: str) -> None:
        """See `KeyUses`."""
        self._metrics.provider_keys_resolved.labels(outcome).inc()

    async def work(self) -> None:
        """Store the uses, write the lines of ended hours, and set the metrics, until cancelled."""
        if self._database is None:
            await asyncio.Event().wait()
        looked = -_LOOK_S
        while True:
            if time.monotonic() - looked >= _LOOK_S:
                looked = time.monotonic()
                await self._look()
            await asyncio.sleep(_WRITE_S)
            await self._counter.write(self._store().used)
            await self._log.write_ended()

    async def write_rest(self) -> None:
        """Store the counters at the end of the process."""
        if self._database is not None:
            await self._counter.write(self._store().used)
            await self._log.write_ended(also_running=True)

    async def _look(self) -> None:
        try:
            totals = await self._store().totals(utc_now())
        except Unavailable as error:
            _log.warning("provider_keys_unread", reason=error.reason)
            return
        known = self._keys.secret_ids if self._keys is not None else []
        gauge = self._metrics.provider_keys
        gauge.labels("active").set(sum(secret.keys for secret in totals))
        gauge.labels("due").set(sum(secret.due for secret in totals))
        gauge.labels("old_secret").set(sum(secret.keys for secret in totals if secret.secret_id in known[1:]))
        gauge.labels("unknown_secret").set(sum(secret.keys for secret in totals if secret.secret_id not in known))

    async def _write_line(self, line: Decryptions) -> None:
        target = {"key_id": line.key_id, "user_id": line.user_id, "provider": line.provider}
        await self._audit.counted(Attempt(line.actor, ACTION, target, line.address, ""), line.times)

    def _cipher(self) -> KeyCipher:
        if self._keys is None:
            raise ConfigurationError("PROVIDER_KEYS_SECRET", "PROVIDER_KEYS_SECRET must be set: it encrypts the keys")
        return self._keys

    def _store(self) -> PostgresProviderKeys:
        return PostgresProviderKeys(needed(self._database, self._settings))
