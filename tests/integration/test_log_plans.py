"""Queries that are made for each call use an index: none reads a whole month of the log."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from connectors.operations import explain, held_usage, late_calls, usage_log
from connectors.postgres import projected_calls
from schemas.moments import to_datetime
from tests.support.calls import NOON
from tests.support.database import migrated_database
from tests.support.history import TOPICS
from tests.support.projection import Writer, usage

AT = to_datetime(NOON)
MONTH = AT.date().replace(day=1)
QUESTIONS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "candidates": (
        usage_log._CANDIDATES,
        (
            [0],
            [b"i" * 16],
            [MONTH],
            ["alias"],
            [AT],
            ["ab" * 16],
            ["call"],
            [False],
            [AT],
            ["acme"],
            [1],
            [0],
            [b"i" * 16],
        ),
    ),
    "bridged": (projected_calls.BRIDGED, ([b"i" * 16], [str(MONTH)])),
    "jobs": (projected_calls.JOBS, ([b"i" * 16], [str(MONTH)])),
    "late": (late_calls._WAITING, (0, 100, 500, [1, 7])),
    "held": (explain._HELD, ("part",)),
    "not mapped now": (held_usage._NOT_MAPPED_NOW, ()),
    "customer": (explain._OF_CUSTOMER, ("acme", AT, AT, AT, 10)),
}


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url, Writer(url) as writer:
        await writer.put(TOPICS.enriched, *(usage(n, request_id=f"r{n}", call_id=f"c{n}") for n in range(200)))
        yield url


@pytest.mark.parametrize("name", QUESTIONS)
async def test_a_query_has_its_index(url: str, name: str) -> None:
    statement, arguments = QUESTIONS[name]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("ANALYZE; SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + statement, *arguments))
    finally:
        await connection.close()
    assert "Seq Scan on llm_usage_log" not in plan and "Seq Scan on rejected_calls" not in plan, plan
