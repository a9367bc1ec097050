"""Makes one answer for all requests that wait for it, so that many requests cost little more than one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

#: After an answer was made, the next one waits for this multiple of the time that it took: making answers takes at most
#: a twentieth of a core.
_RESTS: Final = 19


class SharedAnswer:
    """An answer that is made anew for each request, but seldom: requests that come meanwhile wait, and share the next one.

    No answer is older than its request.

    Args:
        make: makes the answer; it runs in the event loop.
        monotonic: seconds.
        sleep: takes seconds.
    """

    def __init__(
        self,
        make: Callable[[], bytes],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._make = make
        self._monotonic = monotonic
        self._sleep = sleep
        self._next = float("-inf")
        self._making: asyncio.Future[bytes] | None = None

    async def get(self) -> bytes:
        """Return an answer that was made after this call. Raises: what `make` raises."""
        if self._making is None:
            self._making = asyncio.ensure_future(self._made())
        # A request that is cancelled must not cancel the answer of the others.
        return await asyncio.shield(self._making)

    async def _made(self) -> bytes:
        if (wait_s := self._next - self._monotonic()) > 0:
            await self._sleep(wait_s)
        self._making = None
        began = self._monotonic()
        try:
            return self._make()
        finally:
            now = self._monotonic()
            self._next = now + _RESTS * (now - began)
