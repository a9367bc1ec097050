"""The upkeep of credits beside the debits: one account at a time, without a deadlock, and no request waits long."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from connectors.operations import credit_upkeep
from connectors.operations.credit_upkeep import CreditUpkeep
from connectors.postgres.pool import Database
from tests.support.accounts import PROJECTOR, as_role, owned_database
from tests.support.credits import account, balanced, give, reserve
from tests.support.database import migrated_database, rows
from tests.support.eventually import PATIENCE, within

_DEBIT = """
SELECT calls, amount FROM debit_calls(
    ARRAY[$1::bytea], ARRAY[$2::text], ARRAY[$3::text], ARRAY[''], ARRAY[''], ARRAY[''], ARRAY[0.5], ARRAY[now()], ARRAY[now()], ARRAY[true],
    ARRAY['p'], ARRAY['m'], ARRAY[1::bigint], ARRAY[1::bigint], ARRAY['eco']
)
"""
#: $1 accounts with $2 grants of a dollar each, all over, and what the ledger knows about them.
_OVER = """
WITH made AS (
    INSERT INTO user_credits (user_id, balance) SELECT $3 || n, $2 FROM generate_series(1, $1) AS n RETURNING account
), booked AS (
    INSERT INTO ledger_transactions (idempotency_key, digest, transaction_type)
    SELECT account, sha256('x'), 'bonus' FROM made RETURNING transaction_id, idempotency_key AS account
), entered AS (
    INSERT INTO ledger_entries (transaction_id, line, account, amount)
    SELECT transaction_id, line, CASE line WHEN 1 THEN account ELSE 'system:bonuses' END, CASE line WHEN 1 THEN $2 ELSE -$2 END
    FROM booked CROSS JOIN generate_series(1, 2) AS line
), granted AS (
    INSERT INTO credit_grants (account, ledger_transaction, amount, remaining, expires_at)
    SELECT account, transaction_id, 1, 1, now() - interval '1 day' FROM booked CROSS JOIN generate_series(1, $2)
)
INSERT INTO credit_transactions (account, transaction_type, amount, balance_after, idempotency_key, ledger_transaction)
SELECT account, 'bonus', $2, $2, account, transaction_id FROM booked
"""


class NoMetrics:
    """Stores no exported values."""

    def credit_books(self, overdraft_usd: Decimal, reservations: int, imbalance_usd: Decimal) -> None:
        assert overdraft_usd == imbalance_usd == 0

    def credit_upkeep_failed(self) -> None:
        raise AssertionError


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        yield url
        await balanced(url)


async def over(url: str, user: str, *calls: str) -> None:
    """A user with 10 valid dollars, 2 expired ones, and reservations of a dollar for these calls, which have expired
    too.
    """
    await give(url, f"user:{user}", "10")
    await give(url, f"user:{user}", "2", "bonus", datetime.now(UTC) + timedelta(hours=1))
    for call in calls:
        await reserve(url, f"user:{user}", "1", call)
    await rows(url, "UPDATE credit_reservations SET expires_at = now() - interval '1 min'")
    await rows(url, "UPDATE credit_grants SET expires_at = now() - interval '1 min' WHERE amount = 2")


async def test_calls_are_debited_while_the_upkeep_ends_their_reservations(url: str) -> None:
    """The projector has locked the account and then settles the reservation. The upkeep must not hold the reservation
    while it waits for the account: Postgres would end one of both (40P01).
    """
    await over(url, "ada", "c1")
    await over(url, "bob", "c2")
    debiting = await asyncpg.connect(url)
    with Database(url, size=1) as database:
        upkeep = CreditUpkeep(database, NoMetrics())
        try:
            begun = debiting.transaction()
            await begun.start()
            assert tuple(await debiting.fetchrow(_DEBIT, b"first", "", "ada")) == (1, Decimal("0.5"))
            looking = asyncio.ensure_future(upkeep.once())
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            while not looking.done() and (await rows(url, waiting))[0][0] == 0:
                await asyncio.sleep(0.02)
            assert tuple(await debiting.fetchrow(_DEBIT, b"second", "c1", "ada")) == (1, Decimal("0.5"))
            # The account that is locked is left for the next time, and the others do not wait for it.
            assert await asyncio.wait_for(looking, 5 * PATIENCE) == (1, Decimal(2))
            await begun.commit()
            # Expired credits ended with the first call, and no call has used them.
            assert await upkeep.once() == (0, Decimal(0))
        finally:
            await debiting.close()
    assert [await account(url, name) for name in ("user:ada", "user:bob")] == [
        (Decimal(9), Decimal(0)),
        (Decimal(10), Decimal(0)),
    ]
    ended = "SELECT call_id, settled_at IS NOT NULL, released_at IS NOT NULL FROM credit_reservations ORDER BY call_id"
    assert await rows(url, ended) == [("c1", True, False), ("c2", False, True)]


async def test_debits_go_on_while_100_000_grants_expire(url: str) -> None:
    """They belong to 1000 accounts, one of which has 20 080. Another one is locked all the time, as by a batch of
    calls. The upkeep holds one account at a time, so a debit waits for no other.
    """
    await give(url, "user:ada", "1000")
    await rows(url, _OVER, 998, 80, "u")
    await rows(url, _OVER, 1, 20_080, "many")
    await rows(url, _OVER, 1, 80, "zoe")
    await rows(url, "ANALYZE")
    left = "SELECT count(*) FROM credit_grants WHERE remaining > 0 AND expires_at <= now() AND account <> 'user:zoe1'"
    free = "SELECT count(*) FROM (SELECT FROM user_credits FOR KEY SHARE SKIP LOCKED) AS free"
    held, debits, accounts = list[int](), 0, (await rows(url, "SELECT count(*) FROM user_credits"))[0][0]
    debiting, locking, looking = [await asyncpg.connect(url) for _ in range(3)]
    single = "SELECT success FROM debit_user_credits($1, 0.001, 'p', 'm', 1, 1, 'eco')"
    with Database(url, size=1) as database:
        upkeep = CreditUpkeep(database, NoMetrics())

        async def until_all_are_over() -> None:
            async with within(120):
                while (await rows(url, left))[0][0]:
                    await upkeep.once()

        async def look() -> None:
            while not ending.done():
                held.append(accounts - await looking.fetchval(free, timeout=5 * PATIENCE))
                await asyncio.sleep(0.005)

        try:
            locked = locking.transaction()
            await locked.start()
            await locking.execute("SELECT FROM user_credits WHERE user_id = 'zoe1' FOR UPDATE")
            ending = asyncio.ensure_future(until_all_are_over())
            watching = asyncio.ensure_future(look())
            while not ending.done():
                for user in ("ada", f"u{1 + debits % 998}"):
                    # u1 and the others have nothing left: expired credits cannot be spent.
                    assert await debiting.fetchval(single, user, timeout=5 * PATIENCE) is (user == "ada")
                debits += 1
            await asyncio.gather(ending, watching)
            await locked.rollback()
            assert await upkeep.once() == (0, Decimal(80))
        finally:
            await debiting.close()
            await locking.close()
            await looking.close()
    assert await account(url, "user:ada") == (1000 - debits * Decimal("0.001"), Decimal(0))
    assert await rows(url, "SELECT sum(balance) FROM user_credits WHERE user_id <> 'ada'") == [(Decimal(0),)]
    # Besides zoe's and the one that is debited: while a look goes through all accounts, the upkeep may get to others.
    assert debits > 20 and min(held) >= 1 and max(held) < 50, (debits, min(held), max(held))


async def test_a_round_is_bounded_and_the_next_one_continues_after_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the first accounts cannot be processed: they do not block those after them."""
    monkeypatch.setattr(credit_upkeep, "ROUND", 2)
    for user in ("a", "b", "c", "d", "e"):
        await give(url, f"user:{user}", "2", "bonus", datetime.now(UTC) + timedelta(hours=1))
    for user in ("a", "b"):
        assert (await reserve(url, f"user:{user}", "2", f"of {user}"))[0] is True
    await rows(url, "UPDATE credit_grants SET expires_at = now() - interval '1 min'")
    with Database(url, size=1) as database:
        upkeep = CreditUpkeep(database, NoMetrics())
        ended: list[Any] = [(await upkeep.once()).expired_usd for _ in range(3)]
    assert ended == [0, 4, 2]


async def test_an_account_with_many_grants_is_processed_in_parts(url: str) -> None:
    await rows(url, _OVER, 1, 2500, "u")
    parts: Any = [await rows(url, "SELECT released, expired_usd FROM expire_credits('user:u1')") for _ in range(4)]
    assert parts == [[(0, Decimal(1000))], [(0, Decimal(1000))], [(0, Decimal(500))], [(0, Decimal(0))]]
    assert await rows(url, "SELECT count(*) FROM ledger_transactions WHERE transaction_type = 'expiry'") == [(3,)]


class Failing(NoMetrics):
    """Counts failures; the task ends with the third look."""

    failures = looks = 0

    def credit_upkeep_failed(self) -> None:
        self.failures += 1

    async def sleep(self, _seconds: float) -> None:
        self.looks += 1
        if self.looks == 3:
            raise asyncio.CancelledError


@pytest.mark.parametrize(
    "missing",
    [
        "ALTER TABLE credit_grants RENAME TO grants_of_credits",
        "ALTER FUNCTION expire_credits(text, integer) RENAME TO expired_credits",
        "ALTER TABLE user_credits DROP COLUMN overdraft CASCADE",
        f"REVOKE SELECT ON user_credits FROM {PROJECTOR}",
    ],
)
async def test_a_missing_table_function_or_right_is_counted_at_each_look(postgres_url: str, missing: str) -> None:
    """In an earlier version a single log line reported it, and nothing expired."""
    async with owned_database(postgres_url) as url:
        await over(url, "ada", "c1")
        await rows(url, missing)
        books = Failing()
        with Database(as_role(url, PROJECTOR), size=1) as database, pytest.raises(asyncio.CancelledError):
            await CreditUpkeep(database, books, books.sleep).watch()
    assert (books.failures, books.looks) == (3, 3)
