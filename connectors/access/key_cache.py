"""The API keys that requests are checked against; they are read from Postgres again every two seconds.

A revoked key is refused within that time in every process. While Postgres does not answer, known keys stay valid for
five minutes; then every key is answered with 503. An unknown key is answered with 503 at once, because it may be valid.
Requests with unknown keys cause at most two reads per second together.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

import structlog

from connectors.access.keys import ApiKey, key_id_of
from connectors.access.refreshed import Refreshed
from connectors.http.endpoint import Endpoint, Principal
from schemas.errors import MeterbridgeError, Unavailable

#: Seconds: age at which keys are read again; the same for an unknown key; how long known keys stay valid without
#: Postgres; time limit of a read.
FRESH_S, AGAIN_S, BELIEVED_S, READ_S = 2.0, 0.5, 300.0, 1.0
_WRITE_USE_S: Final = 10.0

_log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """A store of keys. All methods raise Unavailable."""

    async def live(self, now: datetime) -> list[ApiKey]:
        """Return the keys that are neither revoked nor expired."""

    async def used(self, last_used_at: Mapping[str, datetime]) -> None:
        """Store when keys were used last, by key id."""


class KeyCache:
    """`connectors.api.authorizer.Credentials` for API keys.

    Args:
        monotonic: seconds.
        now: timezone-aware.
    """

    def __init__(self, store: KeySource, monotonic: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._keys = Refreshed[Mapping[str, ApiKey]](
            {}, self._read, _unread, monotonic, again_s=AGAIN_S, limit_s=READ_S
        )
        self._used: dict[str, datetime] = {}

    def changed(self) -> None:
        """Read the keys again before the next check, because a key was made or revoked in this process."""
        self._keys.changed()

    async def principal(self, token: str, endpoint: Endpoint) -> Principal | None:  # noqa: ARG002  # the same for every endpoint
        """Return the caller with this key; None = the key is not valid. Raises: Unavailable `keys_unknown`."""
        if (key_id := key_id_of(token)) is None:
            return None
        await self._keys.if_older(FRESH_S)
        if key_id not in self._keys.value:
            await self._keys.if_older(AGAIN_S)
        age_s = self._keys.age_s()
        if age_s > BELIEVED_S or (age_s > FRESH_S and key_id not in self._keys.value):
            raise Unavailable("keys_unknown", "API keys cannot be read from Postgres now")
        key, now = self._keys.value.get(key_id), self._now()
        if key is None or not key.is_of(token) or key.state(now) != "live":
            return None
        self._used[key_id] = now
        return Principal(f"key {key.prefix}", key.scopes, key.orgs, key.expires_at, key.prefixes)

    async def keep_writing_use(self) -> None:
        """Store every ten seconds when keys were used, until the task is cancelled."""
        while True:
            await asyncio.sleep(_WRITE_USE_S)
            await self.write_use()

    async def write_use(self) -> None:
        """Store when keys were used. If the store does not answer, this is forgotten."""
        used, self._used = self._used, {}
        if used:
            try:
                await self._store.used(used)
            except MeterbridgeError as error:
                _log.warning("key_use_unwritten", reason=error.reason)

    async def _read(self) -> Mapping[str, ApiKey]:
        return {key.key_id: key for key in await self._store.live(self._now())}


def _unread(error: Exception) -> None:
    if not isinstance(error, MeterbridgeError | TimeoutError):
        raise error
    _log.warning("keys_unread", reason=str(error) or "timeout")
