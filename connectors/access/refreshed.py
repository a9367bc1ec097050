"""Keeps a value that is read from elsewhere, and reads it again when it is old. If the read fails, the old value stays."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_NEVER = float("-inf")


class Refreshed(Generic[T]):
    """The last value that was read. Callers that come at the same time share one read.

    Args:
        first: the value before the first read.
        read: reads the value.
        failed: called with the error of a read that failed; raises for an error that must not be ignored.
        monotonic: seconds.
        again_s: seconds between a failed read and the next one.
        limit_s: time limit of a read in seconds; after it, the read fails with TimeoutError.

    Attributes:
        value: the last value that was read.
    """

    def __init__(
        self,
        first: T,
        read: Callable[[], Awaitable[T]],
        failed: Callable[[Exception], None],
        monotonic: Callable[[], float],
        *,
        again_s: float,
        limit_s: float,
    ) -> None:
        self.value = first
        self._read = read
        self._failed = failed
        self._monotonic = monotonic
        self._again_s = again_s
        self._limit_s = limit_s
        self._read_at = self._tried_at = _NEVER
        self._changed = False
        self._reading = asyncio.Lock()

    def age_s(self) -> float:
        """Return seconds since the last successful read began; infinite before it."""
        return self._monotonic() - self._read_at

    def changed(self) -> None:
        """Mark the value as changed at its source: the next `if_older` reads it again at any age."""
        self._changed = True

    async def if_older(self, than_s: float) -> None:
        """Read the value if it is older than `than_s` seconds, unless the last attempt was less than `again_s` ago.

        A caller with a value that is young enough does not wait for a read that another caller has begun.
        """
        if not self._changed and self.age_s() <= than_s:
            return
        async with self._reading:
            now = self._monotonic()
            if not self._changed and (now - self._read_at <= than_s or now - self._tried_at <= self._again_s):
                return
            self._tried_at, self._changed = now, False
            try:
                async with asyncio.timeout(self._limit_s):
                    self.value, self._read_at = await self._read(), now
            except Exception as error:  # noqa: BLE001  # `failed` raises what must not be ignored
                self._failed(error)
