"""The time for a release of much held usage grows with its calls, not with their square: until it is done, no other
usage of its org is decided.
"""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tests.support.credits import account, balanced, give, prepaid_since
from tests.support.database import migrated_database, rows
from tests.support.history import PREFIX, TOPICS
from tests.support.projection import Writer, event, manifest, usage

CALLS = 12_000
PRICED = {"billed_usd": Decimal("0.01"), "rate": "r1"}
LOOKED_UP = "SELECT pg_stat_get_numscans('credit_transactions_idempotency_key_key'::regclass)"


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        await give(url, "org:org", "1000")
        await prepaid_since(url, "2026-11-20 00:00Z")
        yield url
        await balanced(url)


async def test_a_large_release_looks_up_each_call_by_an_index(url: str) -> None:
    """Instead of comparing each call with all movements, as a planner does that has seen the table only when it was
    small.
    """
    async with Writer(url) as writer:
        for start in range(0, CALLS, 4000):
            calls = [usage(n, part=f"{PREFIX}3", held="no_mapping", **PRICED) for n in range(start, start + 4000)]
            await writer.put(TOPICS.enriched, *calls)
        [(before,)] = await rows(url, LOOKED_UP)
        assert await writer.put(TOPICS.events, event(rate_factor="0.5"), manifest=manifest(3))
    assert await account(url, "org:org") == (Decimal(940), Decimal(0))
    await asyncio.sleep(1)  # a connection reports its statistics when it ends
    [(after,)] = await rows(url, LOOKED_UP)
    # For its accounts, for amounts to be returned, and for amounts to be debited.
    assert after - before >= 3 * CALLS
