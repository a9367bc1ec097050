"""The org endpoints of a real server: its tables in Kafka, its usage in the raw topic, its changes in the audit log."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from connectors.config.settings import Settings
from meterbridge_sdk import MeterbridgeClient
from schemas.customers import OrgRecord
from schemas.topics import AUDIT, ORGS, RAW
from tests.support.eventually import PATIENCE
from tests.support.http_client import http_client
from tests.support.kafka import Kafka
from tests.support.sandbox import KEY, Lago, lago_sandbox
from tests.support.server import BEARER, Server, running_server, settings_for
from tests.support.stored import stored

ORG = "/api/v1/billing/org/organizations/org_1"
SETUP = {"plan_code": "starter", "org_name": "Acme", "email": "a@acme.io", "user_id": "user_1"}
USAGE = {"event_code": "api_call", "transaction_id": "tx-1", "properties": {"tokens": 150}}


@pytest.fixture
async def lago() -> AsyncIterator[Lago]:
    async with lago_sandbox(api_key=KEY) as running:
        for code, cents in (("starter", 1900), ("professional", 4900)):
            await running.plan(code, cents)
        yield running


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str, lago: Lago) -> Settings:
    return settings_for(kafka, topic_prefix, lago_api_url=lago.url, lago_api_key=KEY, api_rate_limit=0)


async def ask(server: Server, verb: str, path: str, status: int = 200, **options: Any) -> dict[str, Any]:
    answer = await server.http.request(verb, path, headers=BEARER, **options)
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def org_record(settings: Settings) -> OrgRecord:
    """The record in the topic."""
    [*_, value] = [value for key, value in stored(settings, ORGS) if key == "org_1"]
    return msgspec.json.decode(value, type=OrgRecord)


async def test_an_org_is_set_up_used_limited_and_moved_and_a_restart_knows_it(settings: Settings) -> None:
    async with running_server(settings) as server:
        created = await ask(server, "POST", f"{ORG}/setup", 201, json=SETUP)
        assert (await ask(server, "POST", f"{ORG}/setup", 200, json=SETUP)) == created
        result = await ask(server, "POST", f"{ORG}/usage/record", 202, json=USAGE)
        warning = "no plan of the org charges the metric 'api_call', so Lago bills nothing for this event"
        assert result == {"status": "accepted", "transaction_id": "tx-1", "warning": warning}
        await ask(server, "PUT", f"{ORG}/limits", json={"limits": {"tokens": 5}})
        await ask(server, "PUT", "/api/v1/billing/plans/professional/limits", json={"limits": {"requests": 9}})
        await ask(server, "PUT", f"{ORG}/subscription", json={"plan_code": "professional"})
    record, external_id = org_record(settings), created["subscription"]["external_id"]
    assert (record.subscription_id, record.plan, record.limits) == (external_id, "professional", {"tokens": 5})
    assert [one.plan_code for one in record.periods] == ["starter", "professional"]
    [(key, value)] = stored(settings, RAW)
    assert (key, b'"tx-1"' in value, b'"api_call"' in value) == ("org_1", True, True)
    async with running_server(settings, ["api"]) as server:
        assert (await ask(server, "GET", f"{ORG}/limits"))["effective"] == {"tokens": 5, "requests": 9}
        page = await ask(server, "GET", f"{ORG}/dashboard")
        assert (page["subscription"]["external_id"], page["missing"]) == (external_id, [])


async def test_every_change_is_in_the_audit_log_and_a_repeat_is_none(settings: Settings) -> None:
    async with running_server(settings) as server:
        for status in (201, 200):
            await ask(server, "POST", f"{ORG}/setup", status, json=SETUP)
        await ask(server, "PUT", f"{ORG}/limits", json={"limits": {"tokens": 5}})
        await ask(server, "GET", f"{ORG}/dashboard")
        await ask(server, "DELETE", f"{ORG}/subscription")
    lines = [value for _, value in stored(settings, AUDIT)]
    assert len(lines) == 3
    assert all(b"master key" in line for line in lines)


async def test_two_processes_that_set_up_one_org_concurrently_create_one_subscription(
    settings: Settings, lago: Lago
) -> None:
    async with running_server(settings) as one, running_server(settings, ["api"]) as other:
        answers = await asyncio.gather(
            *(server.http.post(f"{ORG}/setup", json=SETUP, headers=BEARER) for server in (one, other) for _ in range(5))
        )
        assert {answer.status_code for answer in answers} <= {200, 201}
        assert len({answer.json()["subscription"]["external_id"] for answer in answers}) == 1
    assert (await lago.get("/customers")).json()["meta"]["total_count"] == 1
    assert (await lago.get("/subscriptions")).json()["meta"]["total_count"] == 1
    assert org_record(settings).subscription_id == answers[0].json()["subscription"]["external_id"]


async def test_lagos_key_gives_access_to_customers_and_plans_and_nothing_else(settings: Settings) -> None:
    """As documented for users who already have this key."""
    by_lagos_key = {"Authorization": f"Bearer {KEY}"}
    customer = {"external_id": "customer-123", "name": "Acme", "email": "billing@acme.com", "plan_code": "starter"}
    async with running_server(settings) as server:
        created = await server.http.post("/api/customers", json=customer, headers=by_lagos_key)
        assert created.status_code == 201, created.text
        for path in ("/api/customers/customer-123", "/api/customers/customer-123/invoices", "/api/billing/plans"):
            assert (await server.http.get(path, headers=by_lagos_key)).status_code == 200
        assert (await server.http.get(f"{ORG}/dashboard", headers=by_lagos_key)).status_code == 403
        assert (await server.http.get("/api/customers/customer-123")).status_code == 401


async def test_other_services_record_usage_and_read_limits_through_their_client(settings: Settings) -> None:
    async with running_server(settings) as server, http_client(timeout=10 * PATIENCE, trust_env=False) as http:
        await ask(server, "POST", f"{ORG}/setup", 201, json=SETUP)
        await ask(server, "PUT", f"{ORG}/limits", json={"limits": {"tokens": 5}})
        await ask(server, "PUT", "/api/v1/billing/plans/starter/limits", json={"limits": {"requests": 9}})
        client = MeterbridgeClient(http, str(server.http.base_url), BEARER["Authorization"].removeprefix("Bearer "))
        await client.record_usage("org_1", "api_call", "tx-1", {"tokens": 1}, "2025-03-06T00:00:51Z")
        assert await client.get_limits("org_1") == {"tokens": 5, "requests": 9}
    assert len(stored(settings, RAW)) == 1
