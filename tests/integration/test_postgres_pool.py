"""The pool of connections to Postgres gives a connection to its next user as it was."""

from connectors.postgres.pool import Database
from tests.support.database import rows


async def test_a_connection_is_given_back_without_a_statement_that_undoes_its_settings(postgres_url: str) -> None:
    """Through PgBouncer RESET ALL brought the server's own time zone, by which a call could be of another day."""
    with Database(postgres_url, size=1) as database:
        async with database.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        last = await rows(postgres_url, "SELECT query FROM pg_stat_activity WHERE pid = $1", pid)
        assert last == [("SELECT pg_backend_pid()",)]


async def test_a_transaction_that_was_left_open_ends_when_its_connection_is_given_back(postgres_url: str) -> None:
    with Database(postgres_url, size=1) as database:
        async with database.connection() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await connection.execute("BEGIN")
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") == pid
            assert not connection.is_in_transaction()
