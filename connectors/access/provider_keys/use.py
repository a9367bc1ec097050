"""Counts the decryptions of provider keys, for the table and for the audit log, in batches.

The plugin asks for a key with each call, up to hundreds of times per second. The table gets the sums every ten seconds. The
audit log gets a line before a caller is given a key for the first time in an hour, and a line per further hour with the number
of decryptions since the last line. So for every hour in which a key was given to a caller, a line was durable before.
Every decryption is counted in a line within an hour, unless the process is killed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import structlog

from connectors.access.provider_keys.keys import ProviderKey
from connectors.access.provider_keys.store import Use
from schemas.errors import MeterbridgeError

HOUR_S: Final = 3600.0

_log = structlog.get_logger(__name__)


class Decryptions(NamedTuple):
    """The content of an audit line: who got which key, and how often since the previous line."""

    actor: str
    key_id: str
    user_id: str
    provider: str
    times: int
    address: str


@dataclass(slots=True)
class _Hour:
    """Decryptions of one key for one caller since the line that was written at `began`."""

    began: float
    key: ProviderKey
    address: str
    uncounted: int = 0


class DecryptionLog:
    """Writes the lines of the audit log: for one caller and key, two lines are an hour apart or more.

    Args:
        write: writes a line, which is durable on return; raises Unavailable.
        monotonic: seconds.
    """

    def __init__(self, write: Callable[[Decryptions], Awaitable[None]], monotonic: Callable[[], float]) -> None:
        self._write = write
        self._monotonic = monotonic
        self._hours: dict[tuple[str, str], _Hour] = {}
        self._writing = asyncio.Lock()

    async def giving(self, actor: str, key: ProviderKey, address: str) -> None:
        """Register that a caller is about to be given a key.

        Raises:
            Unavailable: the line could not be written, so the key must not be given away.
        """
        if self._counted(actor, key):
            return
        async with self._writing:
            if self._counted(actor, key):
                return
            hour = self._hours.get((actor, key.key_id)) or _Hour(0.0, key, address)
            await self._write(_line(actor, hour, hour.uncounted + 1))
            self._hours[actor, key.key_id] = _Hour(self._monotonic(), key, address)

    async def write_ended(self, *, also_running: bool = False) -> None:
        """Write the counts of the hours that ended; if the process ends, also the counts of the current hours. Counts
        that cannot be written now are kept.
        """
        async with self._writing:
            for (actor, key_id), hour in list(self._hours.items()):
                if not also_running and self._monotonic() - hour.began < HOUR_S:
                    continue
                if not hour.uncounted:
                    del self._hours[actor, key_id]
                    continue
                count = hour.uncounted
                try:
                    await self._write(_line(actor, hour, count))
                except MeterbridgeError as error:
                    _log.warning("decryptions_unwritten", reason=error.reason)
                    return
                hour.began, hour.uncounted = self._monotonic(), hour.uncounted - count

    def _counted(self, actor: str, key: ProviderKey) -> bool:
        hour = self._hours.get((actor, key.key_id))
        if hour is None or self._monotonic() - hour.began >= HOUR_S:
            return False
        hour.uncounted += 1
        return True


def _line(actor: str, hour: _Hour, count: int) -> Decryptions:
    key = hour.key
    return Decryptions(actor, key.key_id, key.user_id, key.provider, count, hour.address)


class UseCounter:
    """Sums the decryptions by key for the table."""

    def __init__(self) -> None:
        self._uses: dict[str, Use] = {}

    def used(self, key_id: str, at: datetime) -> None:
        """Count a decryption."""
        before = self._uses.get(key_id)
        self._uses[key_id] = Use(1, at) if before is None else Use(before.uses + 1, max(before.at, at))

    async def write(self, store: Callable[[dict[str, Use]], Awaitable[None]]) -> None:
        """Store the sums. Sums that cannot be stored now are added to the next ones."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await store(uses)
        except MeterbridgeError as error:
            _log.warning("provider_key_use_unwritten", reason=error.reason)
            for key_id, use in uses.items():
                later = self._uses.get(key_id)
                self._uses[key_id] = use if later is None else Use(use.uses + later.uses, max(use.at, later.at))
