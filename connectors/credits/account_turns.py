"""Lets one movement of an account run at a time in this process.

The database locks an account's row, so further movements of the account would only wait there, each with a connection.
One busy account could use all connections.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from schemas.errors import Unavailable
from schemas.reasons import NO_CONNECTION


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    requests: int = 0


class AccountTurns:
    """The queue of requests for each account. An account without requests needs no memory.

    Args:
        wait_s: how long a request waits for its turn, seconds.
        on_full: called when a request did not get its turn in time.
    """

    def __init__(self, wait_s: float, on_full: Callable[[], None]) -> None:
        self._wait_s = wait_s
        self._on_full = on_full
        self._turns: dict[str, _Turn] = {}

    @asynccontextmanager
    async def turn(self, account: str) -> AsyncIterator[None]:
        """Wait for the turn, in the order of the requests. Raises: Unavailable: `no_free_connection`."""
        turn = self._turns.setdefault(account, _Turn())
        turn.requests += 1
        try:
            await self._come(turn.lock)
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.requests -= 1
            if not turn.requests:
                del self._turns[account]

    async def _come(self, lock: asyncio.Lock) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                await lock.acquire()
        except TimeoutError as error:
            self._on_full()
            raise Unavailable(NO_CONNECTION, "other requests of this account are not done yet") from error
