"""Every index of the credits is used by a query: Postgres' plans show it, on tables with rows."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from connectors.operations import credit_upkeep
from connectors.postgres import credits as commands
from connectors.postgres import debits
from connectors.postgres.pool import Database
from tests.support.database import migrated_database, rows

#: The question that an index answers, by its name. Indexes of keys and unique columns are used by what they guard.
QUESTIONS = {
    "credit_grants_open": "SELECT remaining FROM credit_grants WHERE account = 'user:u7' AND remaining > 0 ORDER BY expires_at, grant_id",
    "credit_grants_expiring": "SELECT account FROM credit_grants WHERE remaining > 0 AND expires_at <= now()",
    "credit_transactions_account": commands._TRANSACTIONS.replace("$1", "'user:u7'")
    .replace("$2", "20")
    .replace("$3", "0"),
    "credit_transactions_user": "SELECT * FROM credit_transactions WHERE user_id = 'u7' ORDER BY created_at DESC LIMIT 20",
    "credit_transactions_type": "SELECT * FROM credit_transactions WHERE transaction_type = 'refund' AND created_at > now() - interval '1 day'",
    "credit_transactions_stripe": "SELECT * FROM credit_transactions WHERE stripe_transaction_id = 'ch_7'",
    "credit_transactions_refund_of": "SELECT sum(amount) FROM credit_transactions WHERE metadata ->> 'refund_of' IN ('ch_7', 'x')",
    "credit_transactions_package": "SELECT count(*) FROM credit_transactions WHERE package_id = 2 AND created_at > now() - interval '1 day'",
    "credit_transactions_ledger": "SELECT * FROM credit_transactions WHERE ledger_transaction = '00000000-0000-0000-0000-000000000000'",
    "credit_transactions_idempotency_key_key": "SELECT * FROM credit_transactions WHERE idempotency_key = 'call:07'",
    "ledger_transactions_created": "SELECT * FROM ledger_transactions WHERE created_at > now() - interval '1 hour'",
    "ledger_entries_account": "SELECT sum(amount) FROM ledger_entries WHERE account = 'user:u7'",
    "credit_reservations_open": "SELECT sum(amount) FROM credit_reservations WHERE account = 'user:u7' AND settled_at IS NULL "
    "AND released_at IS NULL AND expires_at > clock_timestamp()",
    "credit_reservations_expiring": "SELECT reservation_id FROM credit_reservations WHERE settled_at IS NULL AND released_at IS NULL "
    "AND expires_at <= now() - interval '1 hour'",
    "credit_reservations_call": "SELECT account FROM credit_reservations WHERE call_id = 'c7' ORDER BY created_at DESC LIMIT 1",
    "credit_reservations_one_open": "SELECT FROM credit_reservations WHERE call_id = 'c7' AND settled_at IS NULL AND released_at IS NULL",
    "user_credits_tier": "SELECT count(*) FROM user_credits WHERE tier = 'enterprise'",
    "user_credits_overdrawn": "SELECT account, overdraft FROM user_credits WHERE overdraft > 0 ORDER BY account",
    "user_credits_pkey": "SELECT account FROM user_credits WHERE account = ANY('{user:u1,user:u2}')",
    "user_credits_stripe_customer_id_key": "SELECT account FROM user_credits WHERE stripe_customer_id = 'cus_7'",
}


@pytest.fixture(scope="module")
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        await rows(
            url,
            """WITH made AS MATERIALIZED (SELECT n, 'u' || n AS name FROM generate_series(1, 300) AS n)
            SELECT add_user_credits(name, 10, 'purchase', 'stripe', 'ch_' || n, 1 + n % 4),
                add_user_credits(name, 1, 'bonus', p_metadata => '{"expires_at": "2099-01-01Z"}'),
                authorize_credits('user:' || name, 1, 3600, 'c' || n),
                debit_user_credits(name, 2, 'p', 'm', 1, 1, 'eco')
            FROM made""",
        )
        connection = await asyncpg.connect(url)
        await connection.execute("VACUUM ANALYZE")
        await connection.close()
        yield url


async def plan_of(url: str, statement: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}"))
    finally:
        await connection.close()


@pytest.mark.parametrize("index", QUESTIONS)
async def test_an_index_is_used_by_its_query(url: str, index: str) -> None:
    plan = await plan_of(url, QUESTIONS[index])
    assert f"using {index} on" in plan, plan


async def test_every_index_of_the_credits_has_its_query(url: str) -> None:
    found = await rows(
        url,
        """SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid::regclass::text = ANY($1) AND NOT i.indisprimary
            AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)""",
        [
            "user_credits",
            "credit_transactions",
            "credit_grants",
            "credit_reservations",
            "ledger_entries",
            "ledger_transactions",
        ],
    )
    assert {name for (name,) in found} <= QUESTIONS.keys()


async def test_the_projectors_and_the_upkeeps_queries_read_no_table_completely(url: str) -> None:
    prepaid = debits._PREPAID.replace("$1", "'{user:u1,org:o1}'")
    over = credit_upkeep._OVER.replace("$1", "''").replace("$2", "10")
    for statement in (prepaid, debits._RESERVED.replace("$1", "'{c1,c2}'"), credit_upkeep._STATE, over):
        plan = await plan_of(url, statement)
        for table in ("credit_transactions", "ledger_entries", "ledger_transactions"):
            assert f"Seq Scan on {table}" not in plan, plan


async def test_no_statement_of_the_projector_is_compiled(url: str) -> None:
    """Postgres' just-in-time compiler took three seconds for the statement of each batch of 4000 calls."""
    with Database(url, size=1) as database:
        async with database.connection() as connection:
            assert await connection.fetchval("SHOW jit") == "off"
    [(result,)] = await rows(url, "SELECT proconfig FROM pg_proc WHERE proname = 'debit_calls'")
    assert "jit=off" in result
