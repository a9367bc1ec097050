"""A complete deployment in which each process and command has its documented Postgres account.

A grant that is missing in `roles.sql` is a process that fails here; a table that a role may write to is written to here.
"""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Producer

from connectors.access.provider_keys.cipher import KeyCipher
from connectors.access.provider_keys.keys import new_key
from connectors.access.provider_keys.store import PostgresProviderKeys
from connectors.postgres.pool import Database
from tests.faults.calls import CUSTOMERS
from tests.faults.world import COMMANDS, MASTER_KEY, TOKEN, World, mapped_late, org_of, running_world
from tests.support.accounts import API, PROJECTOR, READER, as_role, owned_database
from tests.support.command import ended
from tests.support.credits import give
from tests.support.database import rows, until
from tests.support.eventually import PATIENCE, soon
from tests.support.http_client import http_client
from tests.support.kafka import Kafka

pytestmark = pytest.mark.faults

#: Of each table a role may write to: does it have a row? No one else writes to these.
_WRITTEN = """
SELECT table_name::text, (xpath('/row/c/text()', query_to_xml('SELECT count(*) AS c FROM ' || table_name, false, true, '')))[1]::text
FROM information_schema.role_table_grants WHERE grantee = $1 AND privilege_type = 'INSERT'
"""
#: Written with the account of `serve` by integration/test_stripe_webhooks.py; nothing is sold here.
SOLD = {"credit_purchases", "stripe_customers", "stripe_payments", "stripe_events"}

#: An endpoint that does not answer, so that also its failure is written.
UNHEARD = {
    "OUTGOING_WEBHOOK_URLS": "http://127.0.0.1:1/",
    "OUTGOING_WEBHOOK_ALLOW_HTTP": "1",
    "OUTGOING_WEBHOOK_SECRETS": f"whsec_{b64encode(bytes(32)).decode()}",
}


def role_of(name: str) -> str:
    """The documented account of a process: docs/database.md."""
    if name.startswith(("project", "ingress")):
        return PROJECTOR if name.startswith("project") else API
    return READER


@asynccontextmanager
async def deployment(kafka: Kafka, folder: Path, url: str, prefix: str) -> AsyncIterator[World]:
    """Start a complete `serve`, one worker per role, and the projector, each with its own account."""
    commands = {name: COMMANDS[name] for name in ("sandbox", "meter-0", "sink-0", "retry-0")} | {"ingress": ("serve",)}
    async with running_world(
        {},
        folder,
        broker=kafka,
        common={"DATABASE_URL": as_role(url, READER), **UNHEARD},
        each=lambda name: {"DATABASE_URL": as_role(url, role_of(name))},
        prefix=prefix,
        commands=commands,
    ) as world:
        yield world


def call(number: int, customer: str, ended: datetime, **fields: Any) -> dict[str, Any]:
    """Return a call of one cent as LiteLLM sends it."""
    return {
        "id": f"chatcmpl-{number}",
        "litellm_call_id": f"call-{number}",
        "status": "success",
        "call_type": "acompletion",
        "model": "gpt-4o",
        "custom_llm_provider": "openai",
        "end_user": customer,
        "response_cost": 0.01,
        "total_tokens": 7,
        "startTime": (ended - timedelta(seconds=1)).timestamp(),
        "endTime": ended.timestamp(),
        **fields,
    }


async def run(world: World, role: str, *words: str) -> tuple[int, str, str]:
    """Run a command with a role's account: its exit code, output and log."""
    environ = {
        **world.environ("command"),
        "DATABASE_URL": as_role(world.common["DATABASE_URL"], role),
        "LOG_LEVEL": "error",
    }
    result = await ended(environ, *words, limit_s=120)
    return result.code, result.out, result.err


async def test_usage_is_billed_and_explained_with_each_process_under_its_own_account(
    kafka: Kafka, postgres_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with owned_database(postgres_url) as url, deployment(kafka, tmp_path, url, topic_prefix) as world:
        await bill(world, url)
        await manage(world, url)
        await explain(world, tmp_path)
        await release(world, url)
        await damage(world, url)
        for name, process in world.processes.items():
            assert not process.deaths, (name, process.deaths)
            assert "postgres_denied" not in process.tail(1 << 20), name
        await rows(as_role(url, PROJECTOR), "SELECT refresh_usage_summary()")
        await until(url, "SELECT count(*) FROM provider_health", lambda found: found == 1, 30)
        await until(url, "SELECT count(*) FROM webhook_endpoints", lambda found: found == 1, 30)
        await keep_provider_key(as_role(url, API))
        for role in (PROJECTOR, API):
            counts = dict(await rows(url, _WRITTEN, role))
            counts.pop("usage_days_changed", None)  # the refresh has taken its rows
            counts.pop("usage_days_failed", None)  # no day has failed
            empty = {table for table, count in counts.items() if count == "0"}
            assert counts and empty == (SOLD if role == API else set()), (role, counts)


async def keep_provider_key(url: str) -> None:
    """Do the writes that `serve` does with `PROVIDER_KEYS_SECRET`."""
    cipher, now = KeyCipher(["A" * 43 + "="]), datetime.now(UTC)
    key = new_key("ada", "openai", "default", "sk-of-a-test-0123456789", "test", now, timedelta(days=90))
    with Database(url, size=1) as database:
        await PostgresProviderKeys(database).add(key, cipher.sealed(key, "sk-of-a-test-0123456789"), cipher.secret_ids)


async def bill(world: World, url: str) -> None:
    """Calls of a mapped customer, one call under two ids as LiteLLM's bridges log it, one of an unmapped customer, and
    one late call.
    """
    mapped, now = [customer for customer in CUSTOMERS if not mapped_late(customer)], datetime.now(UTC)
    calls = [call(n, mapped[n % len(mapped)], now) for n in range(30)]
    calls += [calls[0] | {"id": "chatcmpl-bridged"}, call(100, "a stranger", now)]
    await post(world, calls)

    def billed() -> bool:
        with httpx.Client(trust_env=False, timeout=30 * PATIENCE) as http:
            stats = json.loads(http.get(world.url("sandbox") + "/__stats").text)
        return Decimal(stats["totals"]["billed_cents"]) == 31

    await soon(billed, 60)
    await until(url, "SELECT count(*) FROM lago_events WHERE status = 'completed'", lambda found: found >= 3, 30)
    await until(url, "SELECT count(*) FROM held_parts", lambda found: found == 1, 30)
    await rows(url, "UPDATE log_completeness SET since = '-infinity'")
    await post(world, [call(200, mapped[0], now - timedelta(hours=30))])
    await until(url, "SELECT count(*) FROM rejected_calls WHERE resolution IS NOT NULL", lambda found: found == 1, 60)


async def post(world: World, calls: list[dict[str, Any]]) -> None:
    async with http_client(trust_env=False, timeout=30 * PATIENCE) as http:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = await http.post(world.url("ingress") + "/webhook/litellm/usage", json=calls, headers=headers)
    assert answer.status_code == 202, answer.text


async def manage(world: World, url: str) -> None:
    """Do the queries and changes that `serve` makes in Postgres: keys, orgs, mappings made and taken back."""
    headers = {"Authorization": f"Bearer {MASTER_KEY}"}
    async with http_client(trust_env=False, timeout=30 * PATIENCE, base_url=world.url("api"), headers=headers) as http:
        answers = [
            created := await http.post(
                "/api/v1/access/keys", json={"name": "n", "scopes": ["mappings:read", "stats:read"]}
            ),
            await http.post(f"/api/v1/access/keys/{created.json()['id']}/rotate", json={"overlap_hours": 1}),
            await http.get("/customers/unmapped"),
            await http.get("/webhooks/stats"),
            await http.get("/api/v1/access/keys"),
            await http.post("/api/v1/billing/org/organizations/org_new/setup", json={"plan_code": "ai"}),
            await http.delete("/customers/customer-00/mapping"),
            await http.post("/webhooks/retry", json={"comment": "a trial"}),
        ]
        own = {"Authorization": f"Bearer {created.json()['token']}"}
        answers.append(await http.get("/customers/customer-01/mapping", headers=own))
        answers.append(await http.delete(f"/api/v1/access/keys/{created.json()['id']}"))
        assert [one.status_code // 100 for one in answers] == [2] * len(answers), [one.text for one in answers]
        health = (await http.get("/health")).json()
        assert health["dependencies"]["postgres"]["status"] == "ok", health
    await until(url, "SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL", lambda found: found == 1, 30)
    await until(url, "SELECT count(*) FROM organisations WHERE org_id = 'org_new'", lambda found: found == 1, 30)


async def explain(world: World, folder: Path) -> None:
    """Run every command that reads with the reader's account; those about keys with the api's account."""
    calls = folder / "calls.jsonl"
    calls.write_text(json.dumps(call(300, CUSTOMERS[0], datetime.now(UTC))) + "\n")
    code, out, err = await run(world, READER, "explain", "--request", "chatcmpl-1", "--json")
    assert code == 0, err
    transaction_id = json.loads(out)["calls"][0]["event"]["transaction_id"]
    reading = [
        ["explain", transaction_id],
        ["explain", "--customer", CUSTOMERS[1], "--at", "1m", "--around", "10m"],
        ["reconcile"],
        ["reconcile", "--lago"],
        ["dlq", "list"],
        ["dlq", "requeue", "--dry-run"],
        ["backfill", "--source", "jsonl", "--file", str(calls), "--dry-run"],
        ["audit", "verify"],
        ["held", "list"],
        ["db", "unprojected"],
        ["db", "migrate", "--check"],
    ]
    for words in reading:
        code, out, err = await run(world, READER, *words, "--json")
        assert code in (0, 1) and out.startswith(("{", "[")) and "denied" not in err, (words, code, out, err)
    for words in (["keys", "create", "--name", "c", "--scope", "stats:read"], ["keys", "list"]):
        code, out, err = await run(world, API, *words, "--json")
        assert code == 0, (words, err)


async def release(world: World, url: str) -> None:
    """The unmapped customer gets an org, and the org a credit account: held usage is billed, and the debits of its
    calls are corrected.
    """
    org = org_of(CUSTOMERS[0])
    await give(url, f"org:{org}", "10")
    mapping = {"litellm_customer_id": "a stranger", "lago_customer_id": org, "lago_organization_id": "tenant-1"}
    headers = {"Authorization": f"Bearer {MASTER_KEY}"}
    async with http_client(trust_env=False, timeout=30 * PATIENCE, headers=headers) as http:
        answer = await http.post(world.url("api") + "/customers/mapping", json=mapping)
    assert answer.status_code // 100 == 2, answer.text
    await until(url, "SELECT count(*) FROM corrected_parts WHERE done", lambda found: found == 1, 60)


async def damage(world: World, url: str) -> None:
    """Write a record that cannot be read; it becomes a row of its own kind."""
    producer = Producer({"bootstrap.servers": world.broker.bootstrap})
    producer.produce(world.topics.enriched, b"\xff", key=b"x", timestamp=time.time_ns() // 1_000_000)
    await asyncio.to_thread(producer.flush, 15)
    await until(url, "SELECT count(*) FROM unprojected_records", lambda found: found == 1, 30)
