"""The pool of Postgres connections gives a connection to its next user unchanged."""

from connectors.postgres.pool import Database
from tests.support.database import rows


async def test_a_connection_is_returned_without_resetting_its_settings(postgres_url: str) -> None:
    """Through PgBouncer RESET ALL restored the server's time zone, in which a call could be on another day."""
    with Database(postgres_url, size=1) as database:
        async with database.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        last = await rows(postgres_url, "SELECT query FROM pg_stat_activity WHERE pid = $1", pid)
        assert last == [("SELECT pg_backend_pid()",)]


async def test_an_open_transaction_ends_when_its_connection_is_returned(postgres_url: str) -> None:
    with Database(postgres_url, size=1) as database:
        async with database.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await connection.execute("BEGIN")
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") == pid
            assert not connection.is_in_transaction()
