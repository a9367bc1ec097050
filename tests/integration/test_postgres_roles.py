"""Each process has its own Postgres role, which has no right that the process does not need."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import asyncpg
import pytest

from connectors.access.key_store import PostgresKeys
from connectors.access.keys import ApiKey
from connectors.postgres import forget_month
from connectors.postgres.migrate import make_roles, migrate, pending
from connectors.postgres.pool import Database
from connectors.postgres.prune import prune
from schemas.errors import Rejected, Unavailable
from schemas.records import AuditRecord, Receipt
from tests.support.accounts import API, OWNER, PROJECTOR, READER, ROLES, as_role, owned_database
from tests.support.command import meterbridge
from tests.support.database import projector_parts, rows, until
from tests.support.enriched import put
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, event, manifest, usage
from tests.support.stage import Stage


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    """A database whose tables belong to an account that is no superuser, as documented."""
    async with owned_database(postgres_url) as url:
        yield url


async def allowed(url: str, role: str, statement: str) -> bool:
    """Whether the role may do it; the change is rolled back."""
    connection = await asyncpg.connect(as_role(url, role))
    try:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            return False
        finally:
            await transaction.rollback()
        return True
    finally:
        await connection.close()


async def test_the_projectors_role_is_sufficient_for_every_topic_and_new_months(stage: Stage, url: str) -> None:
    own = as_role(url, PROJECTOR)
    put(stage, range(50))
    async with projector_parts(stage, own) as parts, stage.running("project", parts):
        await until(url, "SELECT count(*) FROM llm_usage_log", lambda count: count == 50)
    async with Writer(own) as writer:
        start = datetime.now(UTC).replace(day=1) + timedelta(days=70)
        moments = {"start": start.isoformat(), "end": start.isoformat()}
        await writer.put(TOPICS.enriched, usage(1, held="no_mapping"), usage(2, **moments), usage(1, offset=9))
        await writer.put(TOPICS.events, event(7), b"garbage", manifest=manifest(8))
        await writer.put(TOPICS.receipts, Receipt(f"{PREFIX}7", "completed", time.time_ns() // 1000))
        await writer.put(TOPICS.audit, AuditRecord("a", 1, "ada", "replay", {}))
    assert await rows(url, "SELECT tableowner FROM pg_tables WHERE tablename = $1", f"llm_usage_log_{start:%Y_%m}") == [
        (OWNER,)
    ]


async def test_the_projectors_role_is_sufficient_for_a_month_that_is_being_pruned(url: str) -> None:
    month = datetime(2026, 5, 3, tzinfo=UTC)
    moments = {"start": month.isoformat(), "end": month.isoformat()}
    async with Writer(as_role(url, PROJECTOR)) as writer:
        await writer.put(TOPICS.enriched, usage(1, **moments))
        await rows(as_role(url, OWNER), forget_month._WATCH.format(table="llm_usage_log_2026_05"))
        await writer.put(TOPICS.enriched, usage(2, **moments))
    assert await rows(as_role(url, OWNER), forget_month._WRITTEN) == [(1, True)]


async def test_the_apis_role_is_sufficient_for_its_keys(stage: Stage, url: str) -> None:
    created = await meterbridge(
        stage, "keys", "create", "--name", "n", "--scope", "mappings:read", "--json", DATABASE_URL=as_role(url, API)
    )
    assert created.code == 0, created.err
    await rows(url, "DELETE FROM api_keys")
    database = Database(as_role(url, API))
    try:
        keys, now = PostgresKeys(database), datetime.now(UTC)
        key = ApiKey("k1", sha256(b"a").digest(), "name", frozenset(), None, now, "ada")
        await keys.add(key)
        await keys.revoke("k1", now)
        assert [one.key_id for one in await keys.all()] == ["k1"] and await keys.live(now) == []
    finally:
        database.terminate()


@pytest.mark.parametrize("words", ["db unprojected", "db migrate --check", "explain --request none"])
async def test_the_readers_role_is_sufficient_for_reading_commands(stage: Stage, url: str, words: str) -> None:
    done = await meterbridge(stage, *words.split(), "--json", DATABASE_URL=as_role(url, READER))
    assert "denied" not in done.err and "Traceback" not in done.err
    assert done.code == (0 if words.startswith("db") else 1), done.err


async def test_the_owner_migrates_and_prunes_and_the_others_do_neither(url: str) -> None:
    assert await pending(as_role(url, OWNER)) == []
    assert await migrate(as_role(url, OWNER)) == []
    await prune(as_role(url, OWNER), datetime.now(UTC) - timedelta(days=90))
    for role in ROLES:
        with pytest.raises(Rejected, match="roles_refused"):
            await make_roles(as_role(url, role))
        with pytest.raises(Unavailable, match="postgres_denied"):
            await prune(as_role(url, role), datetime.now(UTC) + timedelta(days=90))


#: Everything that a role might try, and the only roles that may do it; for most there are none.
TRIES = {
    "DELETE FROM event_queue": set(),
    "DELETE FROM lago_events": set(),
    "UPDATE usage_parts SET status = 'completed'": {PROJECTOR},
    "DELETE FROM usage_parts": set(),
    "DELETE FROM llm_usage_log": set(),
    "TRUNCATE llm_usage_log": set(),
    "UPDATE audit_log SET actor = 'x'": set(),
    "DELETE FROM audit_log": set(),
    "UPDATE rejected_calls SET reason = 'x'": set(),
    "UPDATE rejected_calls SET resolution = 'x'": {PROJECTOR},
    "UPDATE webhook_delivery_logs SET http_status = 200": set(),
    "UPDATE outgoing_webhooks SET body = 'x'": {PROJECTOR},
    "DELETE FROM announced_states": {PROJECTOR},
    "INSERT INTO forgotten_months (month) VALUES ('2026-01-01')": set(),
    "DELETE FROM customer_records": {PROJECTOR},
    "UPDATE log_completeness SET since = '-infinity'": {PROJECTOR},
    "UPDATE projector_offsets SET next = 0": {PROJECTOR},
    "SELECT hash FROM api_keys": {API},
    "SELECT key_id FROM api_keys": {API},
    "UPDATE api_keys SET revoked_at = now()": {API},
    "UPDATE api_keys SET scopes = '{*}'": set(),
    "UPDATE api_keys SET hash = sha256('x')": set(),
    "DELETE FROM api_keys": set(),
    "SELECT ensure_usage_month('2031-01-01')": {PROJECTOR},
    "CREATE TABLE llm_usage_log_2031_02 ()": set(),
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'": set(),
    "DROP TABLE llm_usage_log": set(),
    "DROP VIEW event_queue": set(),
    "ALTER TABLE audit_log DISABLE TRIGGER ALL": set(),
    "CREATE ROLE another": set(),
    "GRANT meterbridge_owner TO CURRENT_USER": set(),
    "SET ROLE meterbridge_owner": set(),
    "SELECT pg_read_file('postgresql.conf')": set(),
    "UPDATE credit_purchases SET credits = 1000": set(),
    "UPDATE credit_purchases SET ending = 'paid'": {API},
    "DELETE FROM credit_purchases": set(),
    "DELETE FROM stripe_payments": set(),
    "DELETE FROM stripe_events": set(),
    "UPDATE stripe_payments SET posted = 0": {API},
    "UPDATE stripe_events SET outcome = 'applied'": {API},
    "SELECT * FROM stripe_events": set(ROLES),
    "SELECT * FROM event_queue": set(ROLES),
    "SELECT * FROM litellm_usage_events": set(ROLES),
    "SELECT * FROM aggregate_customer_usage('c', now(), now())": set(ROLES),
    "SELECT * FROM user_credits, credit_transactions, credit_grants, credit_reservations, ledger_entries": set(ROLES),
    "SELECT * FROM credit_imbalances, credit_packages, power_level_configs": set(ROLES),
    "SELECT get_user_balance('ada')": set(ROLES),
    "SELECT add_user_credits('ada', 1, 'bonus')": {API},
    "SELECT debit_user_credits('ada', 1, 'p', 'm', 1, 1, 'eco')": {API},
    "SELECT authorize_credits('user:ada', 1, 60, 'c', 1)": {API},
    "SELECT settle_reservation('c', 1)": {API},
    "SELECT expire_credits('user:ada')": {API, PROJECTOR},
    "SELECT debit_calls('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')": {
        PROJECTOR
    },
    "SELECT book_credits(NULL, 'system:bonuses', NULL)": set(),
    "SELECT lock_credit_account('user:ada', true)": set(),
    "UPDATE user_credits SET balance = 100": set(),
    "UPDATE user_credits SET overdraft = 0": set(),
    "UPDATE user_credits SET tier = 'starter'": {API},
    "INSERT INTO user_credits (user_id, tier) VALUES ('bob', 'free')": {API},
    "INSERT INTO user_credits (user_id, balance) VALUES ('bob', 1)": set(),
    "DELETE FROM user_credits": set(),
    "INSERT INTO ledger_transactions (idempotency_key, digest, transaction_type) VALUES ('k', sha256('k'), 'bonus')": set(),
    "UPDATE credit_grants SET expires_at = NULL": set(),
    "UPDATE credit_reservations SET released_at = now()": {API},
    "UPDATE credit_reservations SET amount = 0": set(),
    "UPDATE credit_packages SET price_usd = 0": set(),
}


async def test_each_role_is_refused_what_it_does_not_need(url: str) -> None:
    found = {statement: {role for role in ROLES if await allowed(url, role, statement)} for statement in TRIES}
    assert found == TRIES


async def test_months_are_created_in_the_tables_own_schema_for_any_search_path(url: str) -> None:
    """SECURITY DEFINER with the caller's search path would make the owner run the caller's functions."""
    await rows(url, "CREATE SCHEMA mine")
    await rows(url, "GRANT ALL ON SCHEMA mine TO PUBLIC")
    connection = await asyncpg.connect(as_role(url, PROJECTOR), server_settings={"search_path": "mine,public"})
    try:
        await connection.execute("CREATE TABLE mine.llm_usage_log (month date) PARTITION BY RANGE (month)")
        await connection.execute("SELECT public.ensure_usage_month('2031-03-01')")
    finally:
        await connection.close()
    assert await rows(
        url, "SELECT schemaname, tableowner FROM pg_tables WHERE tablename = 'llm_usage_log_2031_03'"
    ) == [("public", OWNER)]


async def test_creating_the_roles_again_removes_additional_rights(url: str) -> None:
    await rows(url, f"GRANT DELETE ON audit_log TO {READER}")
    assert await allowed(url, READER, "DELETE FROM audit_log")
    await make_roles(url)
    assert not await allowed(url, READER, "DELETE FROM audit_log")
