"""How long analytics takes over 30 days of many calls, with the plan of each query: `python -m bench.analytics`.

It makes the calls in a Postgres of its own with `generate_series`, so no index that only writers need is kept.
"""

import argparse
import asyncio
import os
import time
from datetime import date, timedelta
from typing import Any

import asyncpg

from connectors.operations import usage_report
from connectors.operations.usage_report import GROUPS, GROUPS_OF_USER, usage_of_all, usage_of_user
from connectors.postgres.migrate import migrate
from connectors.postgres.pool import Database
from tests.support.database import fresh_database
from tests.support.postgres import start_postgres

FIRST, DAYS = date(2026, 11, 1), 30
_BARE = """
ALTER TABLE llm_usage_log DROP CONSTRAINT llm_usage_log_pkey;
DROP INDEX llm_usage_log_alias, llm_usage_log_customer, llm_usage_log_org, llm_usage_log_part, llm_usage_log_request;
SELECT ensure_usage_month('2026-10-01'), ensure_usage_month('2026-11-01');
"""
_DAY = """
INSERT INTO llm_usage_log (
    identity, month, started_at, ended_at, recorded_at, alias, decision, status, customer_id, id_kind, org_id,
    external_subscription_id, model, provider, call_type, tokens_input, tokens_output, total_tokens, cached_tokens,
    reasoning_tokens, cost_usd, call_id, request_id, user_id, team_id, organization_id, key_hash, key_alias, part, held, note,
    raw_partition, raw_offset, billed_usd, byok, tags
)
SELECT
    decode(md5(n::text || began::text), 'hex'), date_trunc('month', began)::date, began,
    began + make_interval(secs => 0.05 + 30 * random() ^ 4), began, 'a' || n, 'billable',
    CASE WHEN random() < 0.97 THEN 'success' ELSE 'failure' END, 'customer-' || person, 'end_user', 'org_' || person % 200, 's',
    'model-' || (person + n % 3) % 40, 'provider-' || (person + n % 3) % 5, 'acompletion', 1000 + n % 500, 100 + n % 400, 1100 + n % 900, 0, 0,
    0.000123 + (n % 977) * 0.000001, 'a' || n, 'r' || n, 'user-' || person, 'team-' || person % 300, '',
    'key-' || (person + 1000 * (n % 2)), '', 'part-' || n / 100, '', '', 0, n, 0.000145 + (n % 977) * 0.0000013, n % 10 = 0,
    ARRAY['tag-' || person % 20]
FROM (
    SELECT n, (random() * 999)::int AS person, ($1::date::timestamp AT TIME ZONE 'UTC') + make_interval(secs => 86340.0 * n / $2::bigint) AS began
    FROM generate_series(1, $2::bigint) AS n
) AS made
"""


async def run(calls: int) -> None:
    """Make the calls, sum them up, and print what each took."""
    postgres = start_postgres(os.environ)
    try:
        async with fresh_database(postgres.url) as url:
            await migrate(url)
            await _measured(url, calls)
    finally:
        postgres.stop()


async def _measured(url: str, calls: int) -> None:
    connection = await asyncpg.connect(url, server_settings={"synchronous_commit": "off"})
    await connection.execute(_BARE)
    began = time.perf_counter()
    for number in range(DAYS):
        await connection.execute(_DAY, FIRST + timedelta(days=number), calls // DAYS)
    print(f"{calls:,} calls made in {time.perf_counter() - began:.0f} s")
    await connection.execute("VACUUM ANALYZE llm_usage_log")
    for what, day in (("30 days", None), ("one changed day", FIRST + timedelta(days=29))):
        if day is not None:
            await connection.execute("INSERT INTO usage_days_changed VALUES ($1)", day)
        began = time.perf_counter()
        await connection.execute("SELECT refresh_usage_summary()")
        print(f"refresh of {what}: {time.perf_counter() - began:.1f} s")
    await connection.execute("VACUUM ANALYZE usage_by_dimension")
    await connection.execute("VACUUM ANALYZE usage_latencies")
    await connection.execute("VACUUM ANALYZE usage_summary_days")
    await _asked(url)
    for name in ("usage_by_dimension", "usage_summary_days"):
        print(name, await connection.fetchval(f"SELECT count(*) FROM {name}"), "rows")
    await _plans(connection)
    await connection.close()


async def _asked(url: str) -> None:
    last = FIRST + timedelta(days=DAYS - 1)
    with Database(url, size=1) as database:
        for group_by in GROUPS:
            took = [await _took(usage_of_all(database, FIRST, last, group_by, 100)) for _ in range(7)]
            print(f"all calls by {group_by}: median {sorted(took)[3]:.0f} ms, highest {max(took):.0f} ms")
        for group_by in GROUPS_OF_USER:
            took = [await _took(usage_of_user(database, FIRST, last, group_by, 100, "user-7")) for _ in range(7)]
            print(f"one user's by {group_by}: median {sorted(took)[3]:.0f} ms, highest {max(took):.0f} ms")


async def _took(work: Any) -> float:
    began = time.perf_counter()
    await work
    return (time.perf_counter() - began) * 1000


async def _plans(connection: Any) -> None:
    last = FIRST + timedelta(days=DAYS - 1)
    for statement, arguments in (
        (usage_report._BY_DAY, (FIRST, last)),  # noqa: SLF001  # the statements themselves are measured
        (usage_report._BY_VALUE, (FIRST, last, "key", 100)),  # noqa: SLF001
        (usage_report._LATENCIES.format(value="value"), ("key", [f"key-{n}" for n in range(100)], FIRST, last)),  # noqa: SLF001
    ):
        for (line,) in await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}", *arguments):
            print("   ", line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000_000)
    asyncio.run(run(parser.parse_args().calls))
