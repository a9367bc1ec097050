"""Prepaid credits while projector and Postgres are killed: every call is debited once, and the accounts add up."""

import asyncio
import contextlib
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from tests.faults.test_projector_processes import load, projector
from tests.support.credits import account, balanced, give, prepaid_since
from tests.support.database import rows, until
from tests.support.eventually import soon
from tests.support.postgres import Postgres
from tests.support.stage import Stage

pytestmark = pytest.mark.faults

_COST = Decimal("0.000145")
_DEBIT = """
SELECT success FROM debit_user_credits('ada', 0.001, 'p', 'm', 1, 1, 'eco', jsonb_build_object('idempotency_key', $1::text))
"""


async def spend(url: str, stop: asyncio.Event) -> int:
    """Make debits, each repeated with its key until it is answered, during any failure of the server; returns how many."""
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(url, timeout=5)
            try:
                while not stop.is_set():
                    assert await connection.fetchval(_DEBIT, f"k{count}", timeout=5)
                    count += 1
                    await asyncio.sleep(0.01)
            finally:
                with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await connection.close(timeout=1)
        await asyncio.sleep(0.05)
    return count


async def test_accounts_add_up_after_kills_of_projectors_and_postgres(
    stage: Stage, postgres: Postgres, database: str, tmp_path: Path
) -> None:
    """The projector is killed during batches; the server loses commits that were not awaited. A confirmed debit is on
    disk.
    """
    worker = projector("worker", stage, database, tmp_path)
    await give(database, "user:acme", "0.1")
    await give(database, "user:ada", "1000")
    await prepaid_since(database, "2026-01-01Z")
    debits = "SELECT count(*) FROM credit_transactions WHERE account = 'user:acme' AND transaction_type = 'debit'"
    stop = asyncio.Event()
    spending = asyncio.ensure_future(spend(database, stop))
    try:
        with load(stage) as sent:
            for more in (300, 600):
                worker.start()
                await worker.up()
                await until(database, debits, lambda count, more=more: count > more, 60)
                await worker.kill()
            worker.start()
            await worker.up()
            await until(database, debits, lambda count: count > 900, 60)
            await asyncio.to_thread(postgres.kill)
            await soon(lambda: "projection_held" in worker.tail(100_000), 20)
            await asyncio.to_thread(postgres.restart)
            there = (await rows(database, debits))[0][0]
            await until(database, debits, lambda count: count > there + 300, 60)
        await until(database, debits, lambda count: count == sent[0], 60)
        stop.set()
        spent = await spending
        balance, owed = await account(database, "user:acme")
        assert balance - owed == Decimal("0.1") - sent[0] * _COST and min(balance, owed) == 0
        # The last one may be done without its answer.
        left = (await account(database, "user:ada"))[0]
        assert left in {1000 - Decimal("0.001") * count for count in (spent, spent + 1)} and spent > 20
        await balanced(database)
        # From the beginning again: nothing is debited twice.
        await worker.kill()
        await rows(database, "TRUNCATE projector_offsets, llm_usage_log, usage_parts")
        worker.start()
        await worker.up()
        await until(database, "SELECT count(*) FROM llm_usage_log", lambda count: count == sent[0], 60)
        assert await account(database, "user:acme") == (balance, owed)
        await balanced(database)
    finally:
        stop.set()
        spending.cancel()
        await worker.kill()
