"""The projector compared with COPY of the same rows: from the enriched topic into Postgres, with and without prepaid accounts.

COPY gets the rows ready-made, into the same tables with the same indexes and triggers, in one statement a table. CPU times are
those of the writer and of Postgres together.
"""

import asyncio
import tempfile
import time
from pathlib import Path

import asyncpg

from bench.contest import Measured, interleaved, run
from bench.ground import Ground
from bench.records import CUSTOMERS, customer, stored
from bench.report import Row, rows_of
from schemas.topics import TopicNames
from schemas.wire import FLAT
from tests.support.database import migrated_database
from tests.support.postgres import LocalPostgres

#: What the projector writes for calls. COPY of one table after the other keeps the order of references.
_TABLES = {
    False: ("llm_usage_log",),
    True: ("llm_usage_log", "ledger_transactions", "ledger_entries", "credit_transactions"),
}
_ACCOUNTS = """
INSERT INTO user_credits (user_id, prepaid_since) SELECT id, '-infinity' FROM unnest($1::text[]) AS id
"""
_CREDITS = "SELECT add_user_credits(id, 1000, 'purchase', p_metadata => jsonb_build_object('idempotency_key', id)) FROM unnest($1::text[]) AS id"
_MINE = {
    "ledger_transactions": "transaction_type = 'debit'",
    "credit_transactions": "transaction_type = 'debit'",
    "ledger_entries": "transaction_id IN (SELECT transaction_id FROM ledger_transactions WHERE transaction_type = 'debit')",
}


def rows(ground: Ground, records: int, repeats: int) -> list[Row]:
    """Calls that no account pays for."""
    return _compared("projector", ground, records, repeats, prepaid=False)


def prepaid(ground: Ground, records: int, repeats: int) -> list[Row]:
    """Calls that are debited, each, from one of the accounts of all customers."""
    return _compared("projector_prepaid", ground, records, repeats, prepaid=True)


def _compared(name: str, ground: Ground, records: int, repeats: int, *, prepaid: bool) -> list[Row]:
    prefix = ground.corner()
    ground.map_customers(prefix)
    ground.fill(stored(FLAT, records, TopicNames.with_prefix(prefix).raw, time.time_ns() // 1000))
    run("bench.ours.meter_job", ground.bootstrap, prefix, prefix, records)
    postgres = LocalPostgres()
    try:
        with tempfile.TemporaryDirectory(prefix="meterbridge-bench-") as folder:
            contest = _Contest(ground.bootstrap, prefix, records, postgres, Path(folder), prepaid)
            return rows_of(name, "us/record", interleaved({"ours": contest.ours, "copy": contest.copy}, repeats))
    finally:
        postgres.stop()


class _Contest:
    """Both contestants; each run has a new database."""

    def __init__(
        self, bootstrap: str, prefix: str, records: int, postgres: LocalPostgres, folder: Path, prepaid: bool
    ) -> None:
        self._bootstrap, self._prefix, self._records, self._postgres = bootstrap, prefix, records, postgres
        self._folder, self._prepaid = folder, prepaid

    def ours(self) -> Measured:
        """The projector; what it has written is kept for COPY."""
        return asyncio.run(self._ours())

    def copy(self) -> Measured:
        """COPY of what ours has written."""
        return asyncio.run(self._copy())

    async def _ours(self) -> Measured:
        async with migrated_database(self._postgres.url) as url:
            await self._open_accounts(url)
            job = ("bench.ours.projector_job", self._bootstrap, self._prefix, url, self._postgres.pid, self._records)
            found = await asyncio.to_thread(run, *job)
            await self._keep(url)
            return found

    async def _copy(self) -> Measured:
        async with migrated_database(self._postgres.url) as url:
            await self._open_accounts(url)
            job = (url, self._postgres.pid, self._records, str(self._folder))
            return await asyncio.to_thread(run, "bench.peers.copy_job", *job, *_TABLES[self._prepaid])

    async def _open_accounts(self, url: str) -> None:
        connection = await asyncpg.connect(url)
        if self._prepaid:
            names = [customer(number) for number in range(CUSTOMERS)]
            await connection.execute(_ACCOUNTS, names)
            await connection.execute(_CREDITS, names)
        await connection.close()

    async def _keep(self, url: str) -> None:
        connection = await asyncpg.connect(url)
        found = await connection.fetchval("SELECT count(*) FROM llm_usage_log")
        debited = await connection.fetchval("SELECT count(*) FROM credit_transactions WHERE transaction_type = 'debit'")
        if (found, debited) != (self._records, self._records * self._prepaid):
            raise RuntimeError(f"{found} calls were written and {debited} debited, of {self._records}")
        for table in _TABLES[self._prepaid]:
            columns = await connection.fetchval(
                "SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 "
                "AND NOT attisdropped AND attgenerated = ''",
                table,
            )
            (self._folder / f"{table}.columns").write_text(columns)
            query = f"SELECT {columns} FROM {table} WHERE {_MINE.get(table, 'true')}"  # names of our own
            await connection.copy_from_query(query, output=self._folder / table, format="binary")
        await connection.close()
