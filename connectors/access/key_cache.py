"""API keys as requests are checked against them: read from Postgres again once they are two seconds old.

A revoked key is refused within that time, wherever it was revoked. While Postgres is away keys that were known go on
for five minutes, then nothing is known and the answer is 503; a key that was not known is 503 at once, never open
and never called wrong. Wrong keys cost no query each: two reads a second at most, whoever asks.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

import structlog

from connectors.access.keys import ApiKey, key_id_of
from connectors.http.endpoint import Endpoint, Principal
from schemas.errors import MeterbridgeError, Unavailable

#: Seconds: keys are read again; a new key is looked for; without Postgres they are still believed; one read may take.
FRESH_S, AGAIN_S, BELIEVED_S, READ_S = 2.0, 0.5, 300.0, 1.0
_WRITE_USE_S: Final = 10.0
_NEVER = float("-inf")

_log = structlog.get_logger(__name__)


class KeySource(Protocol):
    """Where keys are kept; raises Unavailable."""

    async def live(self, now: datetime) -> list[ApiKey]:
        """Those that are neither revoked nor expired."""

    async def used(self, last_used_at: Mapping[str, datetime]) -> None:
        """When keys were used last."""


class KeyCache:
    """`connectors.api.authorizer.Credentials` of API keys.

    Args:
        monotonic: seconds.
        now: aware.
    """

    def __init__(self, store: KeySource, monotonic: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._now = now
        self._keys: dict[str, ApiKey] = {}
        self._read_at = self._tried_at = _NEVER
        self._reading = asyncio.Lock()
        self._used: dict[str, datetime] = {}
        self._changed = False

    def changed(self) -> None:
        """A key was made or ended here: they are read again before the next one is judged."""
        self._changed = True

    async def who(self, token: str, endpoint: Endpoint) -> Principal | None:  # noqa: ARG002  # a key is one everywhere
        """Whose key it is. Raises: Unavailable `keys_unknown`."""
        if (key_id := key_id_of(token)) is None:
            return None
        await self._read_if_older(FRESH_S)
        if key_id not in self._keys:
            await self._read_if_older(AGAIN_S)
        age_s = self._monotonic() - self._read_at
        if age_s > BELIEVED_S or (age_s > FRESH_S and key_id not in self._keys):
            raise Unavailable("keys_unknown", "API keys cannot be read from Postgres now")
        key, now = self._keys.get(key_id), self._now()
        if key is None or not key.is_of(token) or key.state(now) != "live":
            return None
        self._used[key_id] = now
        return Principal(f"key {key.prefix}", key.scopes, key.orgs, key.expires_at, key.prefixes)

    async def keep_writing_use(self) -> None:
        """Tell the store when keys were used, for ever."""
        while True:
            await asyncio.sleep(_WRITE_USE_S)
            await self.write_use()

    async def write_use(self) -> None:
        """Tell the store when keys were used; while it is away, that is forgotten."""
        used, self._used = self._used, {}
        if used:
            try:
                await self._store.used(used)
            except MeterbridgeError as error:
                _log.warning("key_use_unwritten", reason=error.reason)

    async def _read_if_older(self, than_s: float) -> None:
        """Whoever comes meanwhile waits for the same read; what fails is not tried again for a while."""
        if not self._changed and self._monotonic() - self._read_at <= than_s:
            return
        async with self._reading:
            now_s = self._monotonic()
            if not self._changed and (now_s - self._read_at <= than_s or now_s - self._tried_at <= AGAIN_S):
                return
            self._tried_at, self._changed = now_s, False
            try:
                async with asyncio.timeout(READ_S):
                    keys = await self._store.live(self._now())
            except (MeterbridgeError, TimeoutError) as error:
                _log.warning("keys_unread", reason=str(error) or "timeout")
                return
            self._keys, self._read_at = {key.key_id: key for key in keys}, now_s
