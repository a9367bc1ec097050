"""The documented tables for credits on real Postgres: structure, functions, indexes, seed rows, constraints, atomicity.

The classes have the names of the specification's test suite.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest

from tests.support.columns import columns_of, types_of
from tests.support.credits import account, balanced, give, reserve, sqlstate, take
from tests.support.database import migrated_database, rows

COLUMNS = {
    "user_credits": "account balance created_at org_id overdraft overdraft_policy prepaid_since stripe_customer_id tier "
    "updated_at user_id",
    "credit_transactions": "account amount balance_after completion_tokens created_at idempotency_key ledger_transaction "
    "metadata model package_id payment_method power_level prompt_tokens provider stripe_transaction_id transaction_id "
    "transaction_type user_id",
    "credit_packages": "active bonus_credits created_at credits description name package_id price_usd stripe_price_id updated_at",
    "power_level_configs": "cost_multiplier created_at description power_level provider_order target_latency_ms "
    "target_quality updated_at",
    "credit_grants": "account amount created_at expires_at grant_id ledger_transaction remaining",
    "credit_reservations": "account amount call_id created_at expires_at identity released_at reservation_id settled_at",
    "ledger_accounts": "account created_at kind",
    "ledger_transactions": "created_at digest idempotency_key transaction_id transaction_type",
    "ledger_entries": "account amount line transaction_id",
    "schema_version": "applied_at checksum name version",
}
#: Calls of functions with an argument that is out of range.
OUT_OF_RANGE = (
    "add_user_credits('ada', 0, 'bonus')",
    "add_user_credits('ada', 'NaN', 'bonus')",
    "add_user_credits('ada', 'Infinity', 'bonus')",
    "add_user_credits('ada', -1, 'bonus')",
    "add_user_credits('ada', -1, 'purchase')",
    "add_user_credits('ada', 1, 'debit')",
    "add_user_credits('ada', 1, 'expiry')",
    "add_user_credits('ada', 1, NULL)",
    "add_user_credits('', 1, 'bonus')",
    "add_user_credits(NULL, 1, 'bonus')",
    "add_account_credits('team:x', 1, 'bonus')",
    "debit_user_credits('ada', -1, '', '', 0, 0, '')",
    "debit_user_credits('ada', NULL, '', '', 0, 0, '')",
    "debit_user_credits('ada', 'NaN', '', '', 0, 0, '')",
    "authorize_credits('user:ada', -1, 60, 'c')",
    "authorize_credits('user:ada', 1, 0, 'c')",
    "authorize_credits('user:ada', 1, 60, 'c', 'NaN')",
    "settle_reservation('c', -1)",
)
#: Statements that the database refuses, with the SQLSTATE of the refusal.
REFUSED = {
    "UPDATE user_credits SET balance = -0.01": "23514",
    "UPDATE user_credits SET overdraft = -0.01": "23514",
    "UPDATE user_credits SET tier = 'gold'": "23514",
    "UPDATE user_credits SET overdraft_policy = 'forget'": "23514",
    "INSERT INTO user_credits (user_id) VALUES ('ada')": "23505",
    "INSERT INTO user_credits (user_id, org_id) VALUES ('a', 'b')": "23514",
    "INSERT INTO user_credits DEFAULT VALUES": "23502",
    "INSERT INTO power_level_configs VALUES ('turbo', 2, '{a}', 1, 1)": "23514",
    "INSERT INTO credit_packages (name, credits, price_usd) VALUES ('Pro', 1, 1)": "23505",
    "INSERT INTO credit_packages (name, credits, price_usd) VALUES ('Free', 0, 1)": "23514",
    "SELECT add_user_credits('ada', 1, 'purchase', p_package_id => 99)": "23503",
    "SELECT debit_user_credits('ada', 1, 'p', 'm', 1, 1, 'turbo')": "23514",
    "SELECT debit_user_credits('ada', 1, 'p', 'm', -1, 1, 'eco')": "23514",
    "UPDATE credit_grants SET remaining = remaining + 1": "23514",
    "UPDATE ledger_entries SET amount = 2": "MB002",
    "DELETE FROM ledger_entries": "MB002",
    "TRUNCATE ledger_entries": "MB002",
    "UPDATE ledger_transactions SET digest = sha256('x')": "MB002",
    "DELETE FROM ledger_transactions": "MB002",
    "UPDATE credit_transactions SET amount = 2": "MB002",
    "DELETE FROM credit_transactions": "MB002",
    "INSERT INTO ledger_entries SELECT transaction_id, 9, 'user:ada', 1 FROM ledger_transactions": "MB003",
    "INSERT INTO ledger_entries SELECT transaction_id, 9, 'user:nobody', 1 FROM ledger_transactions": "23503",
}


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        yield url
        await balanced(url)


class TestSchemaStructure:
    async def test_every_table_has_its_columns(self, url: str) -> None:
        assert await columns_of(url, COLUMNS) == COLUMNS

    async def test_money_is_exact_and_times_have_a_zone(self, url: str) -> None:
        money = "^(balance|overdraft|amount|credits|price_usd|remaining|bonus_credits)$"
        assert await types_of(url, COLUMNS, money) == {"numeric"}
        assert await types_of(url, COLUMNS, "_at$|_since$") == {"timestamp with time zone"}

    async def test_updated_at_changes_with_every_update(self, url: str) -> None:
        await give(url, "user:ada", "1")
        for table in ("user_credits", "credit_packages", "power_level_configs"):
            await rows(url, f"UPDATE {table} SET updated_at = '2000-01-01Z'")
            assert await rows(url, f"SELECT count(*) FROM {table} WHERE updated_at < now() - interval '1 hour'") == [
                (0,)
            ]


class TestFunctions:
    async def test_a_debit_takes_the_cost_of_a_call(self, url: str) -> None:
        await give(url, "user:ada", "10")
        success, balance, transaction, error = await take(url, "ada", "1.25")
        assert (success, balance, error) == (True, Decimal("8.75"), None) and isinstance(transaction, UUID)
        assert await rows(url, "SELECT get_user_balance('ada')") == [(Decimal("8.75"),)]

    async def test_a_debit_beyond_the_balance_changes_nothing(self, url: str) -> None:
        await give(url, "user:ada", "1")
        assert await take(url, "ada", "1.01") == (False, Decimal(1), None, "insufficient credits")
        assert await take(url, "bob", "1") == (False, Decimal(0), None, "no credit account")
        assert await rows(url, "SELECT count(*) FROM credit_transactions") == [(1,)]
        assert await take(url, "ada", "1") == (True, Decimal(0), *(await _last(url)), None)

    async def test_a_key_is_used_once_and_for_one_movement(self, url: str) -> None:
        await give(url, "user:ada", "10")
        first = await take(url, "ada", "2", idempotency_key="k")
        await take(url, "ada", "3")
        assert await take(url, "ada", "2.0", idempotency_key="k") == first
        debit = "SELECT * FROM debit_user_credits('ada', 2.5, 'openai', 'gpt-5', 10, 5, 'balanced', '{\"idempotency_key\": \"k\"}')"
        assert await sqlstate(url, debit) == "MB001"
        added = await give(url, "user:ada", "4", idempotency_key="p")
        assert await give(url, "user:ada", "4", idempotency_key="p") == added
        for other in ("add_user_credits('ada', 5, 'purchase'", "add_user_credits('bob', 4, 'purchase'"):
            assert await sqlstate(url, f'SELECT {other}, p_metadata => \'{{"idempotency_key": "p"}}\')') == "MB001"
        assert await account(url, "user:ada") == (Decimal(9), Decimal(0))

    async def test_a_stripe_payment_is_booked_once_without_a_key(self, url: str) -> None:
        purchase = "SELECT * FROM add_user_credits('ada', 50, 'purchase', 'stripe', 'ch_1', 2)"
        assert await rows(url, purchase) == await rows(url, purchase)
        refund = "SELECT * FROM add_user_credits('ada', -50, 'refund', 'stripe', 're_1')"
        assert (await rows(url, refund)) == (await rows(url, refund))
        assert await account(url, "user:ada") == (Decimal(0), Decimal(0))

    async def test_a_negative_refund_removes_credits_and_the_rest_is_owed(self, url: str) -> None:
        await give(url, "user:ada", "10")
        await take(url, "ada", "4")
        assert (await give(url, "user:ada", "-10", "refund"))[1] == 0
        assert await account(url, "user:ada") == (Decimal(0), Decimal(4))
        assert (await give(url, "user:ada", "6"))[1] == Decimal(2)
        assert await account(url, "user:ada") == (Decimal(2), Decimal(0))

    async def test_a_refund_removes_the_rest_of_its_own_payment_first(self, url: str) -> None:
        """Earlier it took the grants that expire first: a bonus was lost, and the refunded credits stayed."""
        soon = datetime.now(UTC) + timedelta(days=1)
        for payment in ("ch_1", "ch_2"):
            await rows(url, "SELECT add_user_credits('ada', 10, 'purchase', 'stripe', $1)", payment)
        await give(url, "user:ada", "5", "bonus", soon)
        left = "SELECT remaining FROM credit_grants ORDER BY grant_id"
        await rows(url, "SELECT add_user_credits('ada', -4, 'refund', 'stripe', 'ch_2')")
        assert await rows(url, left) == [(10,), (6,), (5,)]
        refund = """SELECT add_user_credits('ada', -3, 'refund', 'stripe', 're_1', NULL, '{"refund_of": "ch_2"}')"""
        await rows(url, refund)
        assert await rows(url, left) == [(10,), (3,), (5,)]
        await rows(
            url, "SELECT add_user_credits('ada', -9, 'refund', 'stripe', 'ch_2', NULL, '{\"idempotency_key\": \"k\"}')"
        )
        assert await rows(url, left) == [(9,), (0,), (0,)], "then what expires first"
        await rows(url, "SELECT add_user_credits('bob', 10, 'purchase', 'stripe', 'ch_9')")
        await rows(url, "SELECT add_user_credits('ada', -1, 'refund', 'stripe', 'ch_9')")
        assert await account(url, "user:bob") == (Decimal(10), Decimal(0)), "another account's payment"
        await take(url, "ada", "2")
        await rows(url, "SELECT add_user_credits('ada', -1, 'refund')")
        assert await rows(url, left) == [(5,), (0,), (0,), (10,)]

    @pytest.mark.parametrize("key", ["call:00", "calls:x", "settle:c1", "stripe:purchase:ch_1"])
    async def test_a_callers_key_never_has_the_form_of_ours(self, url: str, key: str) -> None:
        result = f'p_metadata => \'{{"idempotency_key": "{key}"}}\''
        await give(url, "user:ada", "1")
        for call in ("add_user_credits('ada', 1, 'bonus'", "debit_user_credits('ada', 1, 'p', 'm', 1, 1, 'eco'"):
            assert await sqlstate(url, f"SELECT {call}, {result})") == "22023"
        await give(url, "user:ada", "1", idempotency_key=f"my-{key}")
        assert await account(url, "user:ada") == (Decimal(2), Decimal(0))

    async def test_a_refund_names_a_payment_of_its_account_and_removes_what_is_left_of_it(self, url: str) -> None:
        bought = "SELECT transaction_id::text FROM add_user_credits('ada', 10, 'purchase', 'stripe', 'pi_1')"
        [(transaction,)] = await rows(url, bought)
        refund = "SELECT add_user_credits($1, $2, 'refund', NULL, $3, NULL, jsonb_build_object('refund_of', $4::text))"
        await rows(url, refund, "ada", Decimal(-3), "re_1", transaction)
        await rows(
            url, "SELECT add_user_credits('ada', -4, 'refund', 'stripe', 'pi_1')"
        )  # Stripe's own is never refused
        again = "SELECT add_user_credits('ada', 1, 'adjustment', 'stripe', 'pi_1')"  # a dispute that was won
        await rows(url, again)
        assert await sqlstate(url, refund, "ada", Decimal("-4.01"), "re_2", "pi_1") == "MB005"
        assert await sqlstate(url, refund, "bob", Decimal(-1), "re_2", "pi_1") == "MB004"
        assert await sqlstate(url, refund, "ada", Decimal(-1), "re_2", "pi_2") == "MB004"
        await rows(url, refund, "ada", Decimal(-4), "re_2", "pi_1")
        await rows(url, refund, "ada", Decimal(-4), "re_2", "pi_1")  # a repeat is no second refund
        assert await account(url, "user:ada") == (Decimal(0), Decimal(0))

    async def test_an_account_is_prepaid_since_the_commit_that_created_it(self, url: str) -> None:
        """Earlier it was since the start of that transaction: calls that ended in between were not debited, but were at
        a second reading.
        """
        moment = "SELECT prepaid_since FROM user_credits WHERE user_id = $1"
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT add_user_credits('ada', 1, 'bonus')")
                await connection.execute("SELECT add_user_credits('eve', 1, 'bonus')")
                await connection.execute("UPDATE user_credits SET prepaid_since = '2026-01-01Z' WHERE user_id = 'eve'")
                [(ended,)] = await rows(url, "SELECT clock_timestamp()")
                assert await rows(url, moment, "ada") == []
            assert await connection.fetchval(moment, "ada") > ended
            assert f"{await connection.fetchval(moment, 'eve'):%F}" == "2026-01-01", "a moment that was given stays"
            [(since,)] = await rows(url, moment, "ada")
            async with connection.transaction():  # began before, commits after: the first one decides
                await connection.execute("SELECT now()")
                await give(url, "user:bob", "1")
                [(first,)] = await rows(url, moment, "bob")
                await connection.execute(
                    "SELECT add_user_credits('bob', 1, 'bonus'), add_user_credits('ada', 1, 'bonus')"
                )
            assert await rows(url, moment, "bob") == [(first,)] and await rows(url, moment, "ada") == [(since,)]
        finally:
            await connection.close()

    async def test_a_kept_overdraft_is_not_repaid_by_credits(self, url: str) -> None:
        await give(url, "user:ada", "1")
        await give(url, "user:ada", "-3", "adjustment")
        await rows(url, "UPDATE user_credits SET overdraft_policy = 'keep'")
        await give(url, "user:ada", "5")
        assert await account(url, "user:ada") == (Decimal(5), Decimal(2))

    async def test_an_argument_out_of_range_is_refused(self, url: str) -> None:
        found = {call: await sqlstate(url, f"SELECT {call}") for call in OUT_OF_RANGE}
        assert found == dict.fromkeys(OUT_OF_RANGE, "22023")
        assert await rows(url, "SELECT count(*) FROM credit_transactions") == [(0,)]

    async def test_a_reservation_holds_credits_until_it_is_settled(self, url: str) -> None:
        await give(url, "user:ada", "10")
        assert (await reserve(url, "user:ada", "6", "c1"))[::2] == (True, Decimal(4))
        assert await reserve(url, "user:ada", "5", "c2") == (False, None, Decimal(4))
        assert (await take(url, "ada", "5"))[0] is False
        settled = await rows(url, "SELECT * FROM settle_reservation('c1', 7)")
        assert settled[0][:2] == (True, Decimal(3))
        assert await rows(url, "SELECT * FROM settle_reservation('c1', 7)") == settled
        assert await sqlstate(url, "SELECT settle_reservation('c1', 8)") == "MB001"
        assert await sqlstate(url, "SELECT authorize_credits('user:ada', 6, 60, 'c1')") == "MB001", (
            "a call is paid once"
        )
        assert (await reserve(url, "user:ada", "3", "c3"))[0] is True
        [unknown] = await rows(url, "SELECT * FROM settle_reservation('never', 1)")
        assert unknown == (False, Decimal(0), None, "no reservation")

    async def test_the_same_call_is_reserved_once(self, url: str) -> None:
        await give(url, "user:ada", "10")
        first = await reserve(url, "user:ada", "6", "c1")
        assert await reserve(url, "user:ada", "6", "c1") == first
        for account_name, amount in (("user:ada", "5"), ("user:bob", "6")):
            statement = f"SELECT authorize_credits('{account_name}', {amount}, 60, 'c1', 100)"
            assert await sqlstate(url, statement) == "MB001"

    async def test_an_expired_reservation_holds_nothing_and_is_released(self, url: str) -> None:
        await give(url, "user:ada", "10")
        await reserve(url, "user:ada", "9", "c1")
        await rows(url, "UPDATE credit_reservations SET expires_at = now() - interval '1 s'")
        assert (await reserve(url, "user:ada", "8", "c2"))[0] is True
        assert await rows(url, "SELECT * FROM expire_credits('user:ada')") == [(1, Decimal(0))]
        assert await rows(url, "SELECT * FROM expire_credits('user:ada')") == [(0, Decimal(0))]
        # Its call comes after all, and is paid.
        assert (await rows(url, "SELECT new_balance FROM settle_reservation('c1', 2)")) == [(Decimal(8),)]

    async def test_an_overdraft_may_be_allowed_and_debt_uses_it_up(self, url: str) -> None:
        await give(url, "user:ada", "2")
        assert (await reserve(url, "user:ada", "6", "c1", overdraft="5"))[::2] == (True, Decimal(1))
        await rows(url, "SELECT settle_reservation('c1', 6)")
        assert await account(url, "user:ada") == (Decimal(0), Decimal(4))
        assert await reserve(url, "user:ada", "2", "c2", overdraft="5") == (False, None, Decimal(1))
        assert (await reserve(url, "org:new", "1", "c3", overdraft="1"))[0] is True
        assert (await reserve(url, "org:none", "0", "c4"))[0] is False

    async def test_credits_that_expire_first_are_used_first(self, url: str) -> None:
        soon, later = (datetime.now(UTC) + timedelta(days=days) for days in (1, 9))
        await give(url, "user:ada", "3")
        await give(url, "user:ada", "3", "bonus", later)
        await give(url, "user:ada", "3", "bonus", soon)
        await take(url, "ada", "4")
        left = "SELECT remaining FROM credit_grants ORDER BY grant_id"
        assert await rows(url, left) == [(Decimal(3),), (Decimal(2),), (Decimal(0),)]

    async def test_credits_expire_except_reserved_ones(self, url: str) -> None:
        await give(url, "user:ada", "3")
        await give(url, "user:ada", "5", "bonus", datetime.now(UTC) + timedelta(hours=1))
        await reserve(url, "user:ada", "6", "c1")
        await rows(url, "UPDATE credit_grants SET expires_at = now() - interval '1 s' WHERE expires_at IS NOT NULL")
        assert await rows(url, "SELECT get_user_balance('ada')") == [(Decimal(6),)]
        assert await rows(url, "SELECT * FROM expire_credits('user:ada')") == [(0, Decimal(2))]
        assert await rows(url, "SELECT settle_reservation('c1', 1)")
        assert await rows(url, "SELECT * FROM expire_credits('user:ada')") == [(0, Decimal(2))]
        assert await account(url, "user:ada") == (Decimal(3), Decimal(0))

    async def test_users_and_orgs_with_one_name_are_two_accounts(self, url: str) -> None:
        await give(url, "user:x", "1")
        await give(url, "org:x", "2")
        assert await rows(url, "SELECT get_user_balance('x'), get_account_balance('org:x')") == [
            (Decimal(1), Decimal(2))
        ]


class TestIndexes:
    async def test_there_are_more_than_25_indexes(self, url: str) -> None:
        query = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public' AND tablename !~ '^llm_usage_log_'"
        assert (await rows(url, query))[0][0] >= 25


class TestSeedData:
    async def test_the_packages(self, url: str) -> None:
        assert await rows(
            url, "SELECT name, credits, bonus_credits, price_usd, active FROM credit_packages ORDER BY 1"
        ) == [
            ("Enterprise", 500, 75, 500, True),
            ("Pro", 100, 10, 100, True),
            ("Starter", 10, 0, 10, True),
            ("Value", 50, Decimal("2.5"), 50, True),
        ]

    async def test_the_power_levels(self, url: str) -> None:
        query = "SELECT power_level, cost_multiplier, provider_order <> '{}' FROM power_level_configs ORDER BY 2"
        assert await rows(url, query) == [
            ("eco", Decimal("0.7"), True),
            ("balanced", Decimal("1.0"), True),
            ("precision", Decimal("1.5"), True),
        ]


class TestUserCredits:
    async def test_an_account_starts_empty_in_the_tier_free(self, url: str) -> None:
        await rows(url, "INSERT INTO user_credits (user_id, stripe_customer_id) VALUES ('ada', 'cus_1')")
        query = "SELECT account, balance, tier, stripe_customer_id FROM user_credits"
        assert await rows(url, query) == [("user:ada", 0, "free", "cus_1")]


class TestCreditTransactions:
    async def test_every_movement_is_in_the_audit_trail(self, url: str) -> None:
        await rows(url, "SELECT add_user_credits('ada', 100, 'purchase', 'stripe', 'ch_1', 3)")
        await give(url, "user:ada", "5", "bonus", datetime.now(UTC) - timedelta(days=1))
        await take(url, "ada", "1.5", app="chat")
        await rows(url, "SELECT add_user_credits('ada', -20, 'refund', 'stripe', 're_1')")
        await give(url, "user:ada", "-1", "adjustment")
        query = """SELECT transaction_type, amount, balance_after, payment_method, stripe_transaction_id, package_id, provider,
            model, prompt_tokens, completion_tokens, power_level, user_id FROM credit_transactions ORDER BY created_at"""
        nothing, call = (None,) * 5, ("openai", "gpt-5", 10, 5, "balanced")
        assert await rows(url, query) == [
            ("purchase", 100, 100, "stripe", "ch_1", 3, *nothing, "ada"),
            ("bonus", 5, 105, None, None, None, *nothing, "ada"),
            ("expiry", -5, 100, None, None, None, *nothing, "ada"),
            ("debit", Decimal("-1.5"), Decimal("98.5"), None, None, None, *call, "ada"),
            ("refund", -20, Decimal("78.5"), "stripe", "re_1", None, *nothing, "ada"),
            ("adjustment", -1, Decimal("77.5"), None, None, None, *nothing, "ada"),
        ]
        found = await rows(url, "SELECT metadata ->> 'app' FROM credit_transactions WHERE transaction_type = 'debit'")
        assert found == [("chat",)]


class TestConstraints:
    async def test_the_database_refuses_invalid_accounts(self, url: str) -> None:
        await give(url, "user:ada", "10")
        assert {statement: await sqlstate(url, statement) for statement in REFUSED} == REFUSED
        assert await account(url, "user:ada") == (Decimal(10), Decimal(0))

    async def test_the_sum_is_checked_at_the_end_of_the_transaction(self, url: str) -> None:
        """The two sides may be written one after the other."""
        await give(url, "user:ada", "10")
        side = "INSERT INTO ledger_entries SELECT transaction_id, $1, 'system:usage', $2 FROM ledger_transactions"
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                await connection.execute(side, 8, Decimal(1))
                await connection.execute(side, 9, Decimal(-1))
        finally:
            await connection.close()

    async def test_a_movement_in_a_failed_transaction_leaves_nothing(self, url: str) -> None:
        await give(url, "user:ada", "10")
        connection = await asyncpg.connect(url)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("SELECT debit_user_credits('ada', 3, 'p', 'm', 1, 1, 'eco')")
            await transaction.rollback()
        finally:
            await connection.close()
        assert await account(url, "user:ada") == (Decimal(10), Decimal(0))
        assert await rows(url, "SELECT count(*) FROM ledger_transactions") == [(1,)]


async def _last(url: str) -> list[UUID]:
    query = "SELECT transaction_id FROM credit_transactions ORDER BY created_at DESC LIMIT 1"
    return [row[0] for row in await rows(url, query)]
