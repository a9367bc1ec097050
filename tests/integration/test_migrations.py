"""Migrations with real Postgres: the tables are the same for a new and for an upgraded installation, and no file is
applied twice.

The schema that a new installation gets is the sum of the files. What can go wrong is an old installation: its tables
are full, and its months were made before the later files. So each file is applied to a database in use, and the
catalogue is compared with one that got all files at once.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.postgres.migrate import LOCK, Migration, migrate, migrations, pending
from schemas.errors import MeterbridgeError, Rejected, Unavailable
from tests.support.database import fresh_database, rows
from tests.support.eventually import PATIENCE
from tests.support.ports import free_port

CATALOGUE = """
SELECT 'column', table_name::text, column_name::text,
    concat_ws(' ', data_type, collation_name, is_nullable, column_default, generation_expression)
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', tablename::text, indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'view', viewname::text, '', definition FROM pg_views WHERE schemaname = 'public'
UNION ALL
SELECT 'function', proname::text, '', pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'partition', inhparent::regclass::text, inhrelid::regclass::text, pg_get_expr(relpartbound, c.oid)
FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE relkind = 'r'
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
ORDER BY 1, 2, 3, 4
"""
#: What is in use once a file has been applied, by its number; later files find it there.
IN_USE = {
    1: [
        "SELECT ensure_usage_month('2026-10-15')",
        """INSERT INTO llm_usage_log VALUES (
            '\\x00112233445566778899aabbccddeeff', '2026-10-01', '2026-10-31 23:59:59Z', '2026-11-01Z', '2026-11-01Z', 'a',
            'billable', 'success', 'c', 'end_user', 'o', 's', 'm', 'p', 't', 1, 2, 3, 0, 0, 0.000145, 'a', 'r', '', '', '',
            '', '', 'part-1', '', '', 0, 7)""",
        "INSERT INTO projector_offsets VALUES ('topic', 0, 'id', 8)",
    ],
    2: [
        "INSERT INTO usage_parts (part, held_customer_id, held_calls, held_reason) VALUES ('part-2', 'c', 1, 'no_mapping')",
        "INSERT INTO usage_parts (part, event, status) VALUES ('part-1', '{}', 'completed')",
    ],
    3: ["INSERT INTO rejected_calls VALUES (0, 0, now(), 'meter', 'bad_cost', '', 'c', NULL, 1)"],
    4: [
        "INSERT INTO customer_records VALUES ('c', '[]', now(), now(), 3)",
        "INSERT INTO organisations VALUES ('o', '', '', '', '', 'active', '', '{}', '[]', now(), 4)",
        "INSERT INTO audit_log VALUES ('a', now(), 'ada', 'replay', '{}', '', 0, 0)",
        "INSERT INTO webhook_delivery_logs VALUES (0, 5, now(), 'out', 'events.batch', 200, NULL, 7, 1, 100)",
        "INSERT INTO forgotten_months VALUES ('2026-01-01')",
    ],
    5: [
        "INSERT INTO api_keys VALUES ('a', sha256('a'), 'key', '{*}', NULL, now(), 'ada')",
        "INSERT INTO api_keys VALUES ('b', sha256('b'), 'key', '{}', '{o}', now(), 'ada', now(), now(), now(), 'a')",
    ],
    6: [
        "INSERT INTO log_completeness VALUES (0, 'id', '-infinity')",
        "INSERT INTO doubled_calls VALUES ('a', 'b', 'bridge', now(), now(), 'r', 's', 'c', 'c', 1)",
    ],
    7: ["UPDATE usage_parts SET posted_at = '2026-11-01Z', posted_to = 's2'"],
    8: [
        "INSERT INTO usage_parts (part, held_customer_id, held_calls, held_reason) VALUES ('part-8', 'c', 1, 'no_mapping')"
    ],
    9: ["INSERT INTO unprojected_records VALUES ('topic', 0, 7, -1, 'row_refused', 'DataError 22003')"],
    10: ["UPDATE api_keys SET customer_prefixes = '{acme-}'"],
    11: ["UPDATE llm_usage_log SET billed_usd = 0.00029, rate = '2026-12', power_level = 'eco'"],
    12: ["INSERT INTO user_credits (user_id, tier) VALUES ('ada', 'free')"],
    13: [
        "SELECT * FROM add_user_credits('ada', 10, 'purchase', 'stripe', 'ch_1', 1)",
        "SELECT * FROM debit_user_credits('ada', 1.25, 'openai', 'gpt-5', 1, 2, 'eco')",
    ],
    14: [
        """INSERT INTO user_provider_keys (key_id, user_id, provider, key_name, encrypted_key, secret_id, masked_key, rotation_due)
            VALUES ('pk_1', 'ada', 'openai', 'default', 'x', '0123', 'sk-...abcd', now())""",
    ],
    15: [
        """INSERT INTO llm_usage_log (identity, month, started_at, ended_at, recorded_at, alias, decision, status, customer_id,
            id_kind, org_id, external_subscription_id, model, provider, call_type, tokens_input, tokens_output, total_tokens,
            cached_tokens, reasoning_tokens, cost_usd, call_id, request_id, user_id, team_id, organization_id, key_hash,
            key_alias, part, held, note, raw_partition, raw_offset, tags, byok)
            SELECT '\\x00112233445566778899aabbccddee15', '2026-10-01', '2026-10-30Z', '2026-10-30 00:00:02Z', '2026-11-01Z', 'b', 'billable', 'success',
            'c', 'end_user', 'o', 's', 'm', 'p', 't', 1, 2, 3, 0, 0, 0.5, 'b', 'r2', 'ada', '', '', '', '', 'part-1', '', '', 0,
            8, '{prod}', true""",
        "SELECT refresh_usage_summary(), usage_day_failed('2026-10-30', '54000')",
        "INSERT INTO provider_health (provider, model, status, since, calls) VALUES ('p', 'm', 'down', now(), 7)",
    ],
    16: [
        """INSERT INTO credit_purchases (purchase_id, account, package_id, name, credits, price, currency, contents, created_by)
            VALUES ('00112233-4455-6677-8899-aabbccddeeff', 'user:u', 1, 'Starter', 10, 1000, 'usd', sha256('a'), 'user u')""",
        "UPDATE credit_purchases SET session_id = 'cs_1', live = false, ending = 'paid'",
        "INSERT INTO stripe_customers VALUES ('user:u', 'cus_1')",
        "INSERT INTO stripe_payments VALUES ('pi_1', '00112233-4455-6677-8899-aabbccddeeff', '{}', 10, 1)",
        "INSERT INTO stripe_events VALUES ('evt_1', 'charge.refunded', 'waiting', '', 'pi_1')",
    ],
    17: [
        """SELECT * FROM debit_calls(
            '{a}', '{""}', '{ada}', '{""}', '{""}', '{""}', '{0.5}', '{2090-01-01Z}', '{2090-01-01Z}', '{true}', '{p}', '{m}', '{1}',
            '{2}', '{eco}'
        )""",
        "INSERT INTO corrected_parts (part) VALUES ('part-1')",
    ],
    18: ["SELECT nextval('late_call_writes')"],
    19: ["UPDATE organisations SET organization = 'eu'"],
    20: [
        "INSERT INTO announced_states VALUES ('held', 'acme', '0')",
        "INSERT INTO outgoing_webhooks (endpoint, message_id, event_type, body) VALUES ('e', 'msg_1', 'usage.held', '{}')",
        "INSERT INTO webhook_endpoints VALUES ('e', now())",
    ],
    21: [
        """INSERT INTO webhook_delivery_logs (
            partition, "offset", created_at, direction, event_type, error, duration_ms, attempt, events, source
        ) VALUES (0, 6, now(), 'state', 'partition.halted', 'ledger_missing', 0, 1, 0, 'meter/litellm.usage.raw/0')""",
    ],
    22: ["UPDATE llm_usage_log SET decision = 'carried', part = ''"],
    23: [
        "UPDATE usage_parts SET status = 'failed', processed_at = now(), maybe_sent = true, maybe_sent_at = now() WHERE part = 'part-1'"
    ],
    24: ["UPDATE rejected_calls SET resolution = 'purged', call_digest = sha256('a')"],
    25: ["UPDATE llm_usage_log SET decision = 'own_subscription', part = '', byok = NULL"],
    26: ["UPDATE usage_parts SET posted_to = 's3' WHERE part = 'part-1'"],
    27: ["UPDATE llm_usage_log SET cache_hit = true"],
    28: ["UPDATE rejected_calls SET call_digest = NULL"],
    29: ["UPDATE corrected_parts SET recounted = true"],
}


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with fresh_database(postgres_url) as url:
        yield url


async def counts(url: str) -> dict[str, int]:
    tables = [name for (name,) in await rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    return {name: (await rows(url, f"SELECT count(*) FROM {name}"))[0][0] for name in tables}


async def test_a_database_in_use_gets_the_same_schema_as_a_new_one(url: str, postgres_url: str) -> None:
    """Every file needs a line in `IN_USE`: a migration is only known to work on full tables if it is tried on them."""
    files = migrations()
    assert [one.version for one in files] == sorted(IN_USE)
    for number, migration in enumerate(files, 1):
        before = await counts(url)
        assert await migrate(url, files[:number]) == [migration]
        after = await counts(url)
        assert {name: after[name] for name in before if name != "schema_version"} == {
            name: count for name, count in before.items() if name != "schema_version"
        }
        for statement in IN_USE[migration.version]:
            await rows(url, statement)
    async with fresh_database(postgres_url) as fresh:
        assert await migrate(fresh) == files
        await rows(fresh, "SELECT ensure_usage_month('2026-10-15')")
        expected = await rows(fresh, CATALOGUE)
        # A month created now equals one created then.
        for place in (url, fresh):
            await rows(place, "SELECT ensure_usage_month('2026-12-01')")
        assert await rows(url, CATALOGUE) == await rows(fresh, CATALOGUE)
    assert len(expected) > 100 and {kind for kind, *_ in expected} > {
        "column",
        "index",
        "view",
        "function",
        "partition",
    }


async def test_every_month_has_the_same_structure(url: str) -> None:
    await migrate(url)
    created = "llm_usage_log_2027_01"
    await rows(url, "SELECT ensure_usage_month('2027-01-31')")
    await rows(url, "SELECT ensure_usage_month('2027-01-01')")

    def of(table: str, catalogue: list[tuple[Any, ...]]) -> list[tuple[str, ...]]:
        short = [
            (kind, one.replace(table, "*"), two.replace(table, "*"), three.replace(table, "*"))
            for kind, one, two, three in catalogue
        ]
        return [row for row in short if row[1] == "*" and row[0] in ("column", "index", "constraint")]

    catalogue = await rows(url, CATALOGUE)
    assert of(created, catalogue)
    for kind in ("column", "index"):
        assert [row for row in of(created, catalogue) if row[0] == kind] == [
            row for row in of("llm_usage_log_before_2020", catalogue) if row[0] == kind
        ]


async def test_migrating_twice_changes_nothing(url: str) -> None:
    await migrate(url)
    once = await rows(url, "SELECT * FROM schema_version ORDER BY version")
    assert await migrate(url) == [] == await pending(url)
    assert await rows(url, "SELECT * FROM schema_version ORDER BY version") == once


async def test_of_many_concurrent_migrations_each_file_is_applied_once(url: str) -> None:
    """Replicas start together; each may be told to migrate first."""
    done = await asyncio.gather(*(migrate(url) for _ in range(6)))
    assert sorted(one.version for each in done for one in each) == [one.version for one in migrations()]


async def test_the_second_migration_waits_for_the_lock(url: str) -> None:
    holder = await asyncpg.connect(url)
    await holder.execute("SELECT pg_advisory_lock($1)", LOCK)
    waiting = asyncio.ensure_future(migrate(url))
    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    assert not done
    await holder.close()
    assert len(await asyncio.wait_for(waiting, 10 * PATIENCE)) == len(migrations())


async def test_a_file_changed_after_it_was_applied_is_refused_by_name(url: str) -> None:
    """The state of the tables is unknown then: neither the check nor a migration continues."""
    files = migrations()
    await migrate(url, files[:2])
    changed = [files[0], Migration(2, files[1].name, files[1].sql + "-- harmless"), *files[2:]]
    for attempt in (migrate, pending):
        with pytest.raises(MeterbridgeError, match="0002_event_queue was changed") as refused:
            await attempt(url, changed)
        assert refused.value.reason == "migration_changed"
    assert await pending(url, files) == files[2:]


async def test_a_failed_migration_leaves_no_trace_and_those_before_it_stay(url: str) -> None:
    good = Migration(1, "good", "CREATE TABLE good ()")
    bad = Migration(2, "bad", "CREATE TABLE bad (); SELECT 1 / 0")
    with pytest.raises(Rejected) as failed:
        await migrate(url, [good, bad])
    assert failed.value.reason == "migration_failed" and "0002_bad" in failed.value.detail
    assert await rows(url, "SELECT to_regclass('good')::text, to_regclass('bad')::text") == [("good", None)]
    assert await pending(url, [good, bad]) == [bad]


async def test_a_migration_that_cannot_be_recorded_is_not_applied(url: str) -> None:
    """Applied without a record, it would be applied again."""
    unrecordable = Migration(2**40, "unrecordable", "CREATE TABLE unrecordable ()")
    with pytest.raises(Rejected):
        await migrate(url, [unrecordable])
    assert await rows(url, "SELECT to_regclass('unrecordable')") == [(None,)]


async def test_files_of_a_later_version_do_not_disturb_an_earlier_one(url: str) -> None:
    """A release that is rolled back finds its successor's tables, which only add to its own."""
    files = migrations()
    await migrate(url, [*files, Migration(9000, "later", "CREATE TABLE later ()")])
    assert await pending(url) == []


async def test_a_database_that_cannot_store_every_text_is_refused(postgres_url: str) -> None:
    name = "latin_only"
    await rows(postgres_url, f"DROP DATABASE IF EXISTS {name}")
    await rows(postgres_url, f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with pytest.raises(MeterbridgeError, match="UTF8"):
            await migrate(postgres_url.rpartition("/")[0] + f"/{name}")
    finally:
        await rows(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


async def test_an_unavailable_postgres_has_its_own_reason(url: str) -> None:
    with pytest.raises(Unavailable) as away:
        await migrate(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    assert away.value.reason == "postgres_away"


async def test_the_command_migrates_and_its_check_has_an_exit_code(url: str) -> None:
    environ = {"DATABASE_URL": url, "POSTGRES_HOST": ""}

    async def said(*words: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, ["db", "migrate", *words], env=environ)

    result = await said("--check", "--json")
    assert result.exit_code == 1 and len(json.loads(result.stdout)["pending"]) == len(migrations())
    result = await said()
    assert result.exit_code == 0 and "0001_usage_log" in result.stdout
    result = await said("--check")
    assert (result.exit_code, result.stdout) == (0, "The tables are up to date.\n")
    result = await said("--json")
    assert json.loads(result.stdout) == {"applied": [], "pending": []}


def test_the_command_needs_the_address_of_postgres() -> None:
    result = CliRunner().invoke(app, ["db", "migrate"], env={"DATABASE_URL": "", "POSTGRES_HOST": ""})
    assert result.exit_code == 2 and "DATABASE_URL or POSTGRES_HOST must be set" in result.stderr
