"""Makes one answer for all requests that wait for it, so that many requests cost little more than one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: After an answer was made, the next one waits for this multiple of the time that it took, at most some seconds: making
#: answers that take less than a quarter of a second takes at most a twentieth of a core.
_RESTS: Final = 19
_LONGEST_REST_S: Final = 5.0


class SharedAnswer(Generic[T]):
    """An answer that is made anew for each request, but seldom: requests that come meanwhile wait, and share the next one.

    No answer is older than its request.

    Args:
        make: makes the answer.
        monotonic: seconds.
        sleep: takes seconds.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[T]],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._make = make
        self._monotonic = monotonic
        self._sleep = sleep
        self._next = float("-inf")
        self._turn = asyncio.Lock()
        self._making: asyncio.Future[T] | None = None

    async def get(self) -> T:
        """Return an answer that was made after this call. Raises: what `make` raises."""
        if self._making is None:
            self._making = asyncio.ensure_future(self._made())
        # A request that is cancelled must not cancel the answer of the others.
        return await asyncio.shield(self._making)

    async def _made(self) -> T:
        async with self._turn:  # requests that come while an answer is made share the next one
            if (wait_s := self._next - self._monotonic()) > 0:
                await self._sleep(wait_s)
            self._making = None
            began = self._monotonic()
            try:
                return await self._make()
            finally:
                now = self._monotonic()
                self._next = now + min(_RESTS * (now - began), _LONGEST_REST_S)
