"""Connections to Postgres: few, made on first use, bounded in time, thrown away after any error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self

import asyncpg

from connectors.config.postgres_urls import most_connections, with_defaults
from connectors.postgres.errors import decisions

#: To connect; for one statement, as the server and, should it be silent, as the client sees it; for a transaction whose
#: client is frozen, so that its locks do not outlive the wait of the next owner. Seconds.
CONNECT_S, STATEMENT_S, ANSWER_S, IDLE_S = 5.0, 30.0, 35.0, 10.0


class Database:
    """A pool of `size` connections. Absent from the start or later, the server is only missed by who asks.

    A commit is not awaited on disk (`synchronous_commit=off`): a crash of the server takes back the latest transactions
    whole, rows and offsets together, and whoever wrote them finds that out. Fit for projections only.
    """

    def __init__(self, url: str, size: int = 4) -> None:
        self._url = url
        self._size = size
        self._pool: Any = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """An asyncpg connection, outside a transaction; terminated, never reused, when the block raises.

        Raises:
            Unavailable, Rejected: see `connectors.postgres.errors.decisions`; also for what the block does.
        """
        with decisions():
            pool = await self._opened()
            connection = await pool.acquire()
            try:
                yield connection
            except BaseException:
                # No polite ROLLBACK: a server that does not answer would hold up whoever wants to stop.
                with suppress(asyncpg.InterfaceError):  # a connection that broke has left the pool already
                    connection.terminate()
                raise
            finally:
                await pool.release(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def terminate(self) -> None:
        """Drop every connection at once."""
        if self._pool is not None:
            self._pool.terminate()

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                size = min(self._size, most_connections(self._url))
                self._pool = await asyncpg.create_pool(**with_defaults(self._url, **_options(size)))
        return self._pool


_SERVER: Final = {
    "application_name": "meterbridge",
    "statement_timeout": f"{STATEMENT_S:.0f}s",
    "idle_in_transaction_session_timeout": f"{IDLE_S:.0f}s",
    "synchronous_commit": "off",
    "timezone": "UTC",
}


def _options(size: int) -> dict[str, Any]:
    return {
        "min_size": 0,
        "max_size": size,
        "timeout": CONNECT_S,
        "command_timeout": ANSWER_S,
        "server_settings": _SERVER,
    }
