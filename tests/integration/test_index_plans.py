"""Every index of the tables is used by a query: Postgres' plans show it.

The indexes of the credits and of the provider keys are in `test_credit_plans.py` and `test_provider_key_plans.py`.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from connectors.access import key_store
from connectors.credits import payments
from connectors.operations import (
    ended_orgs,
    explain,
    late_calls,
    money_notes,
    provider_health,
    rejected_lookup,
    usage_report,
)
from connectors.operations.outgoing_webhooks import announcements, delivery
from connectors.postgres import projected_calls, prune, unprojected
from tests.integration import test_credit_plans, test_provider_key_plans
from tests.support.database import migrated_database, rows
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, event, manifest, usage

AT = datetime(2026, 11, 20, tzinfo=UTC)
DAY = AT.date()
#: The question of an index, by its name, with its arguments.
QUESTIONS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "llm_usage_log_alias": (projected_calls.BRIDGED, ([b"i" * 16], ["2026-11-01"])),
    "llm_usage_log_customer": (explain._OF_CUSTOMER, ("acme", AT, AT + timedelta(days=1), AT, 10)),
    "llm_usage_log_org": (
        "SELECT sum(cost_usd) FROM llm_usage_log WHERE org_id = $1 AND org_id <> '' AND ended_at >= $2",
        ("o", AT),
    ),
    "llm_usage_log_part": ("SELECT * FROM llm_usage_log WHERE part = $1 AND part <> ''", (f"{PREFIX}7",)),
    "llm_usage_log_request": (projected_calls.JOBS, ([b"i" * 16], ["2026-11-01"])),
    "llm_usage_log_ended": (provider_health._WINDOW, (600, ["server"], "rate_limit", 1000)),
    "usage_parts_id": ("SELECT * FROM event_queue WHERE id = $1", ("00000000-0000-0000-0000-000000000000",)),
    "usage_parts_org": (ended_orgs.USED, ("o", ["sub"])),
    "usage_parts_released": ("SELECT part FROM usage_parts WHERE released_in = $1", (f"{PREFIX}7",)),
    "usage_parts_status": ("SELECT * FROM event_queue WHERE status = 'failed' ORDER BY created_at LIMIT 20", ()),
    "rejected_calls_reason": (money_notes._DIFFERS, ()),
    "rejected_calls_dismissed": (late_calls._WAITING, (0, 100, 500, [1, 7])),
    "rejected_calls_open": (rejected_lookup._OPEN, ("call",)),
    "rejected_calls_late": (late_calls._WAITING, (0, 100, 500, [1, 7])),
    "audit_log_at": ("SELECT * FROM audit_log ORDER BY at DESC LIMIT 20", ()),
    "audit_log_action": ("SELECT * FROM audit_log WHERE action = $1 ORDER BY at DESC LIMIT 20", ("replay",)),
    "webhook_delivery_logs_created": (prune._OLD["webhook_delivery_logs"], (AT,)),
    "webhook_delivery_logs_key": ("SELECT * FROM webhook_delivery_logs WHERE unique_key = $1", ("k",)),
    "webhook_delivery_logs_state": (announcements._PARTITIONS, ("partition", 500, 600)),
    "api_keys_created": (key_store._ALL, (20,)),
    "doubled_calls_found": (money_notes._DOUBLED, ()),
    "unprojected_records_noticed": (unprojected._ROWS, (20,)),
    "usage_summary_days_user": (
        usage_report._OF_USER.format(value="model", sums=usage_report._SUMMED, order="1"),
        (DAY, DAY, "ada", 100),
    ),
    "usage_by_dimension_value": (
        "SELECT sum(calls) FROM usage_by_dimension WHERE dimension = 'org' AND value = $1 AND day >= $2",
        ("o", DAY),
    ),
    "usage_latencies_day": ("DELETE FROM usage_latencies WHERE day = $1", (DAY,)),
    "stripe_payments_purchase": (
        "SELECT * FROM stripe_payments WHERE purchase_id = $1",
        ("00000000-0000-0000-0000-000000000000",),
    ),
    "stripe_events_payment": (
        "SELECT * FROM stripe_events WHERE payment_intent = $1 ORDER BY received_at",
        ("pi_1",),
    ),
    "stripe_events_refused": (payments._REFUSED, (20,)),
    "outgoing_webhooks_due": (delivery._TAKE, ("e", 120)),
    "outgoing_webhooks_ended": (delivery._PRUNE, (30,)),
    "credit_purchases_account": (
        "SELECT * FROM credit_purchases WHERE account = $1 ORDER BY created_at DESC",
        ("user:ada",),
    ),
}
#: An index of page ranges is the best one only for a large table, so these are not there when its question is asked.
RANGES, BETTER = "llm_usage_log_ended", "DROP INDEX llm_usage_log_customer, llm_usage_log_org"
#: Indexes that are no constraint's and no partition's.
_INDEXES = """
SELECT c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition
    AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
"""
#: An index and those of the partitions.
_NAMES = """
SELECT p.relid::regclass::text FROM pg_partition_tree($1::text::regclass) AS p UNION SELECT $1::text
"""


@pytest.fixture(scope="module")
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url, Writer(url) as writer:
        calls = [
            usage(n, request_id=f"r{n}", call_id=f"c{n}", customer_id=f"u{n % 50}", org_id="o") for n in range(300)
        ]
        await writer.put(TOPICS.enriched, *calls)
        for first in range(7, 40):
            await writer.put(TOPICS.events, event(first), manifest=manifest(first=first))
        await rows(url, "SELECT refresh_usage_summary()")
        yield url


@pytest.mark.parametrize("index", QUESTIONS)
async def test_an_index_is_used_by_its_query(url: str, index: str) -> None:
    statement, arguments = QUESTIONS[index]
    names = [name for (name,) in await rows(url, _NAMES, index)]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"BEGIN; SET enable_seqscan = off; {BETTER if index == RANGES else ''}")
        plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + statement, *arguments))
    finally:
        await connection.close()
    assert any(f"using {name} on" in plan or f"Scan on {name} " in plan for name in names), plan


async def test_there_are_at_least_25_indexes_and_each_has_its_query(url: str) -> None:
    found = {name for (name,) in await rows(url, _INDEXES)}
    asked = QUESTIONS.keys() | test_credit_plans.QUESTIONS.keys() | set(test_provider_key_plans.PLANS.values())
    assert len(found) >= 25 and found - asked == set()
