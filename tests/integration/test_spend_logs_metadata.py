"""Metadata of LiteLLM's rows: what a client writes into it does not fill the memory of a reader."""

import json
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from connectors.litellm.spend_logs import spend_logs
from tests.support.database import fresh_database
from tests.support.recorded_day import RECORDED

NOW = datetime.now(UTC)
READ = {
    "usage_object": {"prompt_tokens_details": {"cached_tokens": 7}},
    "user_api_key_alias": "alice",
    "used_client_oauth_token": True,
    "spend_logs_metadata": {"power_level": "eco"},
}
COSTS = {"additional_costs": {"failed_attempts_cost": 0.25}}
LARGE = "x" * (2 << 20)


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with fresh_database(postgres_url) as url:
        schema = (RECORDED / "spendlogs__schema.sql").read_text()
        await execute(url, "\n".join(line for line in schema.splitlines() if not line.startswith("\\")))
        yield url


async def execute(url: str, statement: str, *arguments: Any) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def put(url: str, number: int, metadata: object) -> None:
    names = 'request_id, call_type, spend, "startTime", "endTime", litellm_call_id, metadata'
    statement = f"""INSERT INTO public."LiteLLM_SpendLogs" ({names}) VALUES ($1, 'acompletion', 1, $2, $2, NULL, $3)"""
    await execute(url, statement, f"r-{number}", NOW.replace(tzinfo=None), json.dumps(metadata))


async def read(url: str) -> list[dict[str, Any]]:
    span = timedelta(hours=1)
    return [json.loads(element) async for _, element in spend_logs(url, NOW - span, NOW + span)]


async def test_only_the_members_that_are_read_are_fetched(url: str) -> None:
    """Earlier a page of a thousand calls with a megabyte of metadata each took more than a gigabyte."""
    for number in range(20):
        notes = {"note": LARGE, "power_level": "eco"}
        written = {
            **READ,
            "litellm_call_id": f"c-{number}",
            "spend_logs_metadata": notes,
            "cost_breakdown": COSTS,
            "status": None,
        }
        await put(url, number, written)
    tracemalloc.start()
    try:
        elements = await read(url)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(element["metadata"], element["litellm_call_id"]) for element in elements] == [
        (READ, f"c-{number}") for number in sorted(range(20), key=str)
    ]
    assert all(element["cost_breakdown"] == COSTS for element in elements)
    assert peak < 10 * len(LARGE)


async def test_a_row_without_a_power_level_has_none(url: str) -> None:
    await put(url, 1, {"user_api_key_alias": "alice", "spend_logs_metadata": {"note": "x"}})
    assert [element["metadata"] for element in await read(url)] == [{"user_api_key_alias": "alice"}]


async def test_tags_are_read_up_to_64_kb(url: str) -> None:
    for number, tag in enumerate(("power:eco", "x" * (1 << 20))):
        await put(url, number, READ)
        table = 'public."LiteLLM_SpendLogs"'
        await execute(
            url, f"UPDATE {table} SET request_tags = $1 WHERE request_id = $2", json.dumps([tag]), f"r-{number}"
        )
    assert [element["request_tags"] for element in await read(url)] == ['["power:eco"]', None]


@pytest.mark.parametrize("kind", ["jsonb", "json", "text"])
async def test_metadata_in_a_text_is_read_up_to_a_megabyte(url: str, kind: str) -> None:
    await execute(url, 'ALTER TABLE public."LiteLLM_SpendLogs" ALTER metadata DROP DEFAULT')
    await execute(url, f'ALTER TABLE public."LiteLLM_SpendLogs" ALTER metadata TYPE {kind} USING metadata::{kind}')
    await put(url, 1, json.dumps(READ))
    await put(url, 2, json.dumps({**READ, "note": LARGE}))
    await put(url, 3, ["no object"])
    await put(url, 4, None)
    assert [element["metadata"] for element in await read(url)] == [READ, {}, {}, {}]
