"""Concurrent movements of one account in real Postgres: exact to the cent, without a deadlock, and never beyond the
limit.
"""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from tests.support.credits import account, balanced, give
from tests.support.database import migrated_database, rows

#: Connections at once: Postgres allows 100.
_AT_ONCE = 40


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        yield url
        await balanced(url)


async def at_once(url: str, statement: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    """The first row of each, over many connections."""
    async with asyncpg.create_pool(url, min_size=_AT_ONCE, max_size=_AT_ONCE) as pool:
        return await asyncio.gather(*(pool.fetchrow(statement, *some) for some in arguments))


async def test_100_concurrent_debits_are_exact(url: str) -> None:
    await give(url, "user:ada", "50")
    debit = "SELECT * FROM debit_user_credits('ada', 0.123456789012 + $1::int * 0, 'p', 'm', 1, 1, 'eco')"
    done = await at_once(url, debit, [(n,) for n in range(100)])
    assert all(row["success"] for row in done) and len({row["new_balance"] for row in done}) == 100
    assert await account(url, "user:ada") == (Decimal(50) - 100 * Decimal("0.123456789012"), Decimal(0))


async def test_concurrent_debits_stop_at_the_balance(url: str) -> None:
    await give(url, "user:ada", "10")
    done = await at_once(
        url, "SELECT * FROM debit_user_credits('ada', $1, 'p', 'm', 1, 1, 'eco')", [(Decimal(3),)] * 60
    )
    assert sum(row["success"] for row in done) == 3
    assert await account(url, "user:ada") == (Decimal(1), Decimal(0))


@pytest.mark.parametrize("overdraft", [0, 2])
async def test_1000_concurrent_authorisations_never_overspend(url: str, overdraft: int) -> None:
    await give(url, "user:ada", "10")
    authorize = "SELECT * FROM authorize_credits('user:ada', 0.07, 600, $1, $2)"
    done = await at_once(url, authorize, [(f"c{n}", Decimal(overdraft)) for n in range(1000)])
    most = int((10 + overdraft) / Decimal("0.07"))
    assert sum(row["authorized"] for row in done) == most
    assert await rows(url, "SELECT count(*), sum(amount) FROM credit_reservations") == [(most, most * Decimal("0.07"))]
    # Each settles its reserved amount, concurrently with further authorisations.
    calls = [f"c{n}" for n, row in enumerate(done) if row["authorized"]]
    more = [f"late{n}" for n in range(100)]
    settle = "SELECT * FROM settle_reservation($1, 0.07)"
    await asyncio.gather(
        at_once(url, settle, [(call,) for call in calls]),
        at_once(url, authorize, [(c, Decimal(overdraft)) for c in more]),
    )
    balance, owed = await account(url, "user:ada")
    assert balance - owed == 10 - most * Decimal("0.07") and owed <= overdraft


async def test_one_key_that_arrives_many_times_at_once_moves_once(url: str) -> None:
    add = "SELECT * FROM add_user_credits('ada', 10, 'purchase', 'stripe', 'ch_1', 1)"
    done = await at_once(url, add, [()] * 40)
    assert len({row["transaction_id"] for row in done}) == 1
    assert await account(url, "user:ada") == (Decimal(10), Decimal(0))


async def test_two_batches_of_calls_of_the_same_accounts_do_not_deadlock(url: str) -> None:
    """Projectors of two partitions debit the same accounts in different orders, and so do commands."""
    names = [f"u{n}" for n in range(20)]
    for name in names:
        await give(url, f"user:{name}", "10")
    batch = """SELECT * FROM debit_calls($1, $2, $3, $2, $2, $2, array_fill(0.5, ARRAY[20]),
        array_fill(now(), ARRAY[20]), array_fill(now(), ARRAY[20]), array_fill(true, ARRAY[20]), $2, $2, array_fill(1::bigint, ARRAY[20]),
        array_fill(1::bigint, ARRAY[20]), $2)"""

    def calls(number: int) -> tuple[Any, ...]:
        order = names if number % 2 else names[::-1]
        return [f"{number}:{name}".encode() for name in order], [""] * 20, order

    single = "SELECT * FROM debit_user_credits($1, 0.25, 'p', 'm', 1, 1, 'eco')"
    await asyncio.gather(
        at_once(url, batch, [calls(n) for n in range(16)]), at_once(url, single, [(n,) for n in names * 2])
    )
    assert {await account(url, f"user:{name}") for name in names} == {(Decimal("1.5"), Decimal(0))}
