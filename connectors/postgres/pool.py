"""Connections to Postgres: a small pool with time limits, opened at first use. A connection is dropped after any error."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Self

import asyncpg

from connectors.config.postgres_urls import most_connections, with_defaults
from connectors.postgres.errors import decisions
from schemas.errors import Unavailable
from schemas.reasons import NO_CONNECTION

#: Limits in seconds: for connecting; for a statement, at the server; for its answer, at the client, if the server does
#: not answer; for an idle transaction, so that the locks of a frozen client end before the next owner stops waiting.
CONNECT_S, STATEMENT_S, ANSWER_S, IDLE_S = 5.0, 30.0, 35.0, 10.0
#: How long a request waits for a free connection, seconds.
FREE_S: Final = 2.0


class Database:
    """A pool of at most `size` connections. A server that does not answer is noticed only when a connection is used.

    A commit does not wait for the disk (`synchronous_commit=off`). A crash of the server may lose the latest
    transactions, each as a whole with rows and offsets; their writer detects this. So this is for projections only:
    what is in Postgres alone is written in `lasting` transactions.

    Args:
        size: the maximum number of connections; the URL may set a smaller one.
        free_s: how long a free connection is waited for, seconds; None = no limit, for background work.
        on_full: called when no connection was free in time.
    """

    def __init__(
        self, url: str, size: int = 4, free_s: float | None = None, on_full: Callable[[], None] = lambda: None
    ) -> None:
        self._url = url
        self.size = min(size, most_connections(url))
        self._free_s = free_s
        self._on_full = on_full
        self._places = asyncio.Semaphore(self.size)
        self._pool: Any = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Yield an asyncpg connection without a transaction. If the block raises, the connection is terminated.

        Raises:
            Unavailable: `no_free_connection`.
            Unavailable, Rejected: see `connectors.postgres.errors.decisions`; also for errors of the block.
        """
        await self._free_place()
        try:
            async with self._taken() as connection:
                yield connection
        finally:
            self._places.release()

    @asynccontextmanager
    async def lasting(self) -> AsyncIterator[Any]:
        """Yield a connection in a transaction whose commit waits for the disk. Raises: see `connection`."""
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = on")
            yield connection

    async def _free_place(self) -> None:
        try:
            async with asyncio.timeout(self._free_s):
                await self._places.acquire()
        except TimeoutError as error:
            self._on_full()
            raise Unavailable(NO_CONNECTION, "other requests have all connections to Postgres") from error

    @asynccontextmanager
    async def _taken(self) -> AsyncIterator[Any]:
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
                self._pool = await asyncpg.create_pool(**with_defaults(self._url, **_options(self.size)))
        return self._pool


@asynccontextmanager
async def connected(url: str, **settings: str) -> AsyncIterator[Any]:
    """Yield one asyncpg connection for a command, in UTC, with these settings of the session.

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
    # Every statement is fast. JIT compilation of a long statement would take longer, up to some seconds for each batch
    # of calls.
    "jit": "off",
}


def _options(size: int) -> dict[str, Any]:
    return {
        "min_size": 0,
        "max_size": size,
        "timeout": CONNECT_S,
        "command_timeout": ANSWER_S,
        "server_settings": _SERVER,
        "reset": _as_it_is,
    }


async def _as_it_is(_connection: Any) -> None:
    """Do not reset the session, because our transactions change no setting of it. The driver would send RESET ALL after
    every use, which is a round trip. With PgBouncer, the next user of the connection would then have the server's time
    zone instead of ours.
    """
