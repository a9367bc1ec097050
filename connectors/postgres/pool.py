"""Connections to Postgres: a small pool with time limits, opened at first use. A connection is dropped after any error."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self

import asyncpg

from connectors.config.postgres_urls import most_connections, with_defaults
from connectors.postgres.errors import decisions

#: Limits in seconds: to connect; for a statement, set at the server; for its answer, at the client, if the server is silent; for
#: an idle transaction, so that the locks of a frozen client end before the next owner stops waiting.
CONNECT_S, STATEMENT_S, ANSWER_S, IDLE_S = 5.0, 30.0, 35.0, 10.0


class Database:
    """A pool of at most `size` connections. A server that does not answer is noticed only when a connection is used.

    A commit does not wait for the disk (`synchronous_commit=off`). A crash of the server may lose the latest transactions,
    each as a whole, rows and offsets together; their writer finds this out. So this is for projections only.
    """

    def __init__(self, url: str, size: int = 4) -> None:
        self._url = url
        self._size = size
        self._pool: Any = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """An asyncpg connection without a transaction. If the block raises, the connection is terminated.

        Raises:
            Unavailable, Rejected: see `connectors.postgres.errors.decisions`; also for errors of the block.
        """
        with decisions():
            pool = await self._opened()
            connection = await pool.acquire()
            try:
                yield connection
            except BaseException:
                # No ROLLBACK: the process could not stop while the server does not answer.
                with suppress(asyncpg.InterfaceError):  # a broken connection has left the pool already
                    connection.terminate()
                raise
            finally:
                await pool.release(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def terminate(self) -> None:
        """Close all connections at once."""
        if self._pool is not None:
            self._pool.terminate()

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                size = min(self._size, most_connections(self._url))
                self._pool = await asyncpg.create_pool(**with_defaults(self._url, **_options(size)))
        return self._pool


@asynccontextmanager
async def connected(url: str, **settings: str) -> AsyncIterator[Any]:
    """One asyncpg connection for a command, in UTC, with these settings of the session.

    Raises:
        Unavailable, Rejected: see `connectors.postgres.errors.decisions`; also for errors of the block.
    """
    options = {"timezone": "UTC", **settings}
    with decisions():
        connection = await asyncpg.connect(**with_defaults(url, timeout=CONNECT_S, server_settings=options))
        try:
            yield connection
        finally:
            await connection.close(timeout=CONNECT_S)


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
