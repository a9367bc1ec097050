"""Other programs use the credits' tables and functions under their documented names: with psycopg2, and with psql."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
import pytest
from psycopg2.extras import RealDictCursor

from tests.support.credits import balanced
from tests.support.database import fresh_database, migrated_database
from tests.support.eventually import PATIENCE
from tests.support.postgres import binaries

MIGRATIONS = sorted((Path(__file__).parents[2] / "connectors" / "postgres" / "migrations").glob("*.sql"))
TABLES = (
    *("user_credits", "credit_transactions", "user_provider_keys", "llm_usage_log", "provider_health"),
    *("credit_packages", "power_level_configs"),
)
FUNCTIONS = ("debit_user_credits", "add_user_credits", "get_user_balance", "refresh_usage_summary")


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        yield url
        await balanced(url)


@pytest.fixture
def connection(url: str) -> Iterator[Any]:
    created = psycopg2.connect(url)
    yield created
    created.close()


def debited(connection: Any, cost: object, metadata: dict[str, Any], user: str = "ada") -> dict[str, Any]:
    """All eight arguments by position, metadata as JSON; the answer by column."""
    with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute(
            "SELECT * FROM debit_user_credits(%s, %s, %s, %s, %s, %s, %s, %s::JSONB)",
            (user, cost, "openai", "gpt-5", 1200, 350, "balanced", json.dumps(metadata)),
        )
        return dict(cursor.fetchone())


def added(
    connection: Any,
    user_id: str,
    amount: Decimal,
    transaction_type: str,
    payment_method: str,
    stripe_transaction_id: str,
    package_id: int | None = None,
) -> bool:
    """Whether credits were added; the parameters of this function have the order of the documented arguments."""
    places = (user_id, amount, transaction_type, payment_method, stripe_transaction_id, package_id)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT success FROM add_user_credits(%s, %s, %s, %s, %s, %s)", places)
        return bool(cursor.fetchone()[0])


def balance(connection: Any) -> Decimal:
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT get_user_balance(%s)", ("ada",))
        found: Decimal = cursor.fetchone()[0]
        return found


async def test_a_payment_a_debit_and_a_refund_by_a_program(connection: Any) -> None:
    """A purchase with its package, a call, and a refund as a negative amount; each may be repeated."""
    paid = {"transaction_type": "purchase", "payment_method": "stripe", "stripe_transaction_id": "ch_1"}
    for _ in range(2):
        assert added(connection, user_id="ada", amount=Decimal(50), package_id=2, **paid)
    first = debited(connection, Decimal("0.0125"), {"idempotency_key": "call-1", "app": "chat"})
    assert first.pop("transaction_id") and first == {
        "success": True,
        "new_balance": Decimal("49.9875"),
        "error_message": None,
    }
    assert debited(connection, Decimal("0.0125"), {"idempotency_key": "call-1", "app": "chat"})["success"]
    assert balance(connection) == Decimal("49.9875")
    back = {"transaction_type": "refund", "payment_method": "stripe", "stripe_transaction_id": "re_1"}
    for _ in range(2):
        assert added(connection, user_id="ada", amount=Decimal(-50), **back)
    assert balance(connection) == 0


async def test_a_program_sees_why_a_debit_was_refused(connection: Any) -> None:
    assert debited(connection, 1, {}) == {
        "success": False,
        "new_balance": 0,
        "transaction_id": None,
        "error_message": "no credit account",
    }
    added(connection, "ada", Decimal(1), "bonus", "none", "none")
    refused = debited(connection, 2, {})
    assert (refused["success"], refused["error_message"]) == (False, "insufficient credits")
    assert balance(connection) == 1


async def test_a_movement_that_a_program_rolls_back_has_not_happened(connection: Any) -> None:
    added(connection, "ada", Decimal(1), "bonus", "none", "none")
    with connection.cursor() as cursor:
        cursor.execute("SELECT debit_user_credits('ada', 1, 'openai', 'gpt-5', 1, 1, 'eco')")
    connection.rollback()
    assert balance(connection) == 1


async def test_a_float_cost_of_a_program_counts_as_its_text(connection: Any) -> None:
    """psycopg2 writes a float by its shortest text: `0.1` costs exactly ten cents."""
    added(connection, "ada", Decimal(1), "bonus", "none", "none")
    assert debited(connection, 0.1, {})["new_balance"] == Decimal("0.9")


async def test_a_program_uses_ids_as_uuid_and_can_refresh_the_summary(connection: Any) -> None:
    added(connection, "ada", Decimal(1), "bonus", "none", "none")
    with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        cursor.execute("SELECT transaction_id FROM credit_transactions WHERE user_id = %s", ("ada",))
        UUID(cursor.fetchone()["transaction_id"])
        cursor.execute("SELECT refresh_usage_summary()")
        cursor.execute("SELECT * FROM llm_usage_summary")
        assert cursor.fetchall() == []


def psql(url: str, *arguments: str) -> str:
    """The output of psql; it comes with the server's programs, or alone."""
    program = shutil.which("psql") or str(binaries() / "psql")
    done = subprocess.run(
        [program, url, "--no-psqlrc", "--set", "ON_ERROR_STOP=1", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_psql_lists_the_tables_the_functions_and_the_packages(url: str) -> None:
    tables, functions = psql(url, "-c", r"\dt"), psql(url, "-c", r"\df")
    assert [name for name in TABLES if f" {name} " not in tables] == []
    assert [name for name in FUNCTIONS if f" {name} " not in functions] == []
    packages = psql(url, "-c", "SELECT * FROM credit_packages;")
    assert [name for name in ("Starter", "Value", "Pro", "Enterprise") if name not in packages] == []


async def test_psql_creates_the_tables_from_the_unchanged_files(postgres_url: str) -> None:
    """They are plain SQL. `meterbridge db init` also stores which were applied, and creates the roles' rights."""
    async with fresh_database(postgres_url) as url:
        for file in MIGRATIONS:
            psql(url, "--quiet", "--single-transaction", "-f", str(file))
        assert "(4 rows)" in psql(url, "-c", "SELECT * FROM credit_packages;")
        assert "(3 rows)" in psql(url, "-c", "SELECT * FROM power_level_configs;")
