"""`meterbridge credits` and the upkeep beside the projector, on real Postgres."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from connectors.cli.main import app
from connectors.operations.credit_upkeep import CreditUpkeep
from connectors.postgres.pool import Database
from connectors.telemetry.metrics import Metrics
from connectors.telemetry.worker_metrics import WorkerSensors
from tests.support.credits import account, give, reserve, take
from tests.support.database import migrated_database, rows


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        yield url


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The audit lines that commands write, without Kafka."""
    lines: list[tuple[Any, ...]] = []

    def audited(_deployment: Any, _sender: Any, action: str, target: Any, **facts: Any) -> str:
        lines.append((action, target["account"], target["key"], facts["cost_usd"]))
        return "a1"

    monkeypatch.setattr("connectors.cli.credits.audited", audited)
    return lines


async def credits_command(url: str, *words: str) -> Any:
    environ = {"DATABASE_URL": url, "POSTGRES_HOST": ""}
    return await asyncio.to_thread(CliRunner().invoke, app, ["credits", *words], env=environ)


async def test_credits_are_granted_once_for_a_key_and_audited_before(url: str, audit: list[tuple[Any, ...]]) -> None:
    words = ("grant", "user:ada", "25.50", "--expires", "90d", "--key", "k", "--comment", "welcome", "--json")
    first, second = [json.loads((await credits_command(url, *words)).stdout) for _ in range(2)]
    assert first == second and (first["balance"], first["amount"], first["audit_id"]) == ("25.5", "25.5", "a1")
    assert audit == [("credits.grant", "user:ada", "k", Decimal("25.50"))] * 2
    other = await credits_command(url, "grant", "user:ada", "26", "--key", "k")
    assert other.exit_code == 1 and "the key was used for another movement" in other.stderr
    query = "SELECT metadata ->> 'comment', payment_method, transaction_type FROM credit_transactions"
    assert await rows(url, query) == [("welcome", "manual", "bonus")]
    [(expires_at,)] = await rows(url, "SELECT expires_at FROM credit_grants")
    assert timedelta(days=90) < expires_at - datetime.now(UTC) <= timedelta(days=91) and expires_at.hour == 0


async def test_a_grant_that_cannot_be_audited_is_not_made(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> str:
        raise RuntimeError

    monkeypatch.setattr("connectors.cli.credits.audited", away)
    assert isinstance((await credits_command(url, "grant", "user:ada", "1")).exception, RuntimeError)
    assert await rows(url, "SELECT count(*) FROM user_credits") == [(0,)]


async def test_a_refund_takes_credits_back(url: str, audit: list[tuple[Any, ...]]) -> None:
    await give(url, "org:acme", "10")
    told = json.loads((await credits_command(url, "refund", "org:acme", "4", "--json")).stdout)
    assert (told["balance"], told["amount"]) == ("6", "-4") and audit[0][0] == "credits.refund"
    assert await rows(url, "SELECT amount FROM credit_transactions WHERE transaction_type = 'refund'") == [(-4,)]


async def test_balance_and_transactions_are_shown(url: str) -> None:
    await give(url, "user:ada", "10")
    await give(url, "user:ada", "2", "bonus", datetime(2099, 1, 1, tzinfo=UTC))
    await reserve(url, "user:ada", "3", "c")
    await take(url, "ada", "1")
    told = json.loads((await credits_command(url, "balance", "user:ada", "--json")).stdout)
    assert (told["balance"], told["reserved"], told["overdraft"], told["tier"]) == ("11", "3", "0", "free")
    assert [(grant["remaining"], grant["expires_at"]) for grant in told["grants"]] == [
        ("1", "2099-01-01T00:00:00Z"),
        ("10", None),
    ]
    told = await credits_command(url, "transactions", "user:ada", "--json", "--limit", "2")
    assert [row["amount"] for row in json.loads(told.stdout)["transactions"]] == ["-1", "2"]
    for words in (("balance", "user:ada"), ("transactions", "user:ada"), ("transactions", "user:none")):
        assert (await credits_command(url, *words)).exit_code == 0
    told = await credits_command(url, "balance", "user:none")
    assert told.exit_code == 1 and "there is no such account" in told.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("grant", "ada", "1"), "an account is user:ID or org:ID."),
        (("grant", "user:ada", "1e"), "is no amount"),
        (("grant", "user:ada", "0"), "an amount is not 0"),
        (("grant", "user:ada", "--", "-1"), "only an adjustment may be below 0"),
        (("grant", "user:ada", "1", "--type", "gift"), "--type takes bonus"),
        (("refund", "user:ada", "--", "-1"), "the amount of a refund is above 0"),
    ],
)
def test_a_wrong_word_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    told = CliRunner().invoke(app, ["credits", *words], env={"DATABASE_URL": "postgresql://x@127.0.0.1:1/x"})
    assert told.exit_code == 2 and sentence in told.stderr


WRONG = {
    "balance": "UPDATE user_credits SET balance = balance + 1",
    "overdraft": "UPDATE user_credits SET overdraft = 1",
    "grants": "UPDATE credit_grants SET remaining = remaining - 1",
    "ledger_transaction": "INSERT INTO ledger_entries SELECT transaction_id, 9, 'system:usage', 1 FROM ledger_transactions",
    "audit_trail": "INSERT INTO credit_transactions (account, transaction_type, amount, balance_after, idempotency_key, "
    "ledger_transaction) SELECT 'user:ada', 'bonus', 1, 1, 'x', transaction_id FROM ledger_transactions",
}


@pytest.mark.parametrize("problem", WRONG)
async def test_the_check_finds_what_the_owner_of_the_tables_has_done_to_the_books(url: str, problem: str) -> None:
    await give(url, "user:ada", "10")
    told = await credits_command(url, "check")
    assert told.exit_code == 0 and told.stdout == "All credits balance: 1 accounts, 1 ledger transactions.\n"
    await rows(url, "ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_balanced")
    await rows(url, WRONG[problem])
    told = await credits_command(url, "check", "--json")
    found = {row["problem"] for row in json.loads(told.stdout)["wrong"]}
    assert told.exit_code == 1 and problem in found


async def test_the_upkeep_ends_what_is_over_and_exports_the_state_of_the_books(url: str) -> None:
    metrics = Metrics(CollectorRegistry(), "1")

    def exported(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"meterbridge_{name}")

    await give(url, "user:ada", "10")
    await give(url, "user:ada", "2", "bonus", datetime.now(UTC) - timedelta(days=1))
    await give(url, "user:bob", "-3", "adjustment")
    await reserve(url, "user:ada", "1", "c1")
    await reserve(url, "user:ada", "1", "c2")
    await rows(url, "UPDATE credit_reservations SET expires_at = now() WHERE call_id = 'c1'")
    await rows(url, "UPDATE credit_grants SET expires_at = now() WHERE amount = 2")
    with Database(url) as database:
        upkeep = CreditUpkeep(database, WorkerSensors(metrics, lambda: 0.0))
        await upkeep.once()
        assert (exported("credits_overdraft_usd"), exported("credit_reservations_open")) == (3, 1)
        assert exported("credits_imbalance_usd") == 0 and await account(url, "user:ada") == (Decimal(10), Decimal(0))
        assert await upkeep.once() == (0, 0)
        await rows(url, "UPDATE user_credits SET balance = 11 WHERE user_id = 'ada'")
        await upkeep.once()
        assert exported("credits_imbalance_usd") == 1
    assert exported("credit_upkeep_failures_total") == 0
    upkeep.sensors.credit_upkeep_failed()
    assert exported("credit_upkeep_failures_total") == 1
