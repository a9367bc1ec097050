"""`meterbridge credits` and the upkeep beside the projector, with real Postgres."""

import asyncio
import json
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
from connectors.telemetry.worker_sensors import WorkerSensors
from tests.support.credits import account, give, reserve, take
from tests.support.database import rows


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


async def test_credits_are_granted_once_for_a_key_after_the_audit_line(url: str, audit: list[tuple[Any, ...]]) -> None:
    words = ("grant", "user:ada", "25.50", "--new", "--expires", "90d", "--key", "k", "--comment", "welcome", "--json")
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
    assert isinstance((await credits_command(url, "grant", "user:ada", "1", "--new")).exception, RuntimeError)
    assert await rows(url, "SELECT count(*) FROM user_credits") == [(0,)]


async def test_credits_for_an_id_that_nothing_has_need_a_word(url: str, audit: list[tuple[Any, ...]]) -> None:
    """Earlier a misspelt org got an account of its own, and the org that was meant no credits."""
    row = '(org_id, name, email, plan, currency, status, subscription_id, limits, periods, updated_at, "offset")'
    await rows(
        url, f"INSERT INTO organisations {row} VALUES ('acme-inc', '', '', '', '', '', '', '{{}}', '[]', now(), 0)"
    )
    mapped = "(litellm_customer_id, versions, created_at, updated_at, \"offset\") VALUES ('ada', '[]', now(), now(), 0)"
    await rows(url, f"INSERT INTO customer_records {mapped}")
    for typo, meant in (("org:acme-incc", "did you mean org:acme-inc?"), ("user:adda", "did you mean user:ada?")):
        refused = await credits_command(url, "grant", typo, "1")
        assert refused.exit_code == 1, refused.output
        assert (
            f"no account, org or customer {typo} is known: {meant} To make a new account, add --new." in refused.stderr
        )
    unlike = await credits_command(url, "grant", "user:zed", "1")
    assert "no account, org or customer user:zed is known. To make a new account, add --new." in unlike.stderr
    assert (audit, await rows(url, "SELECT count(*) FROM user_credits")) == ([], [(0,)])
    for account_name, word in (("org:acme-inc", ()), ("user:ada", ()), ("user:zed", ("--new",)), ("user:zed", ())):
        result = await credits_command(url, "grant", account_name, "1", *word)
        assert result.exit_code == 0, result.output
    typo = await credits_command(url, "grant", "user:zedd", "1")
    assert "did you mean user:zed?" in typo.stderr


async def test_a_refund_removes_credits(url: str, audit: list[tuple[Any, ...]]) -> None:
    await give(url, "org:acme", "10")
    result = json.loads((await credits_command(url, "refund", "org:acme", "4", "--json")).stdout)
    assert (result["balance"], result["amount"]) == ("6", "-4") and audit[0][0] == "credits.refund"
    assert await rows(url, "SELECT amount FROM credit_transactions WHERE transaction_type = 'refund'") == [(-4,)]


@pytest.mark.parametrize(
    "words", [("refund", "user:ada", "10.5"), ("grant", "user:ada", "-10.5", "--type", "adjustment")]
)
async def test_more_than_the_balance_is_taken_only_on_an_explicit_word(
    url: str, audit: list[tuple[Any, ...]], words: tuple[str, ...]
) -> None:
    """Earlier an amount with a digit too many became a debt, and the answer said only that the balance is 0."""
    await give(url, "user:ada", "10")
    refused = await credits_command(url, *words, "--key", "k")
    assert refused.exit_code == 1 and (
        "insufficient_credits: the balance is 10 USD, so 10.5 USD would leave 0.5 USD owed. Nothing was taken. Give at most 10, or --overdraft"
        in refused.stderr.replace("\n", " ")
    )
    assert await account(url, "user:ada") == (Decimal(10), Decimal(0))
    for more in ("--overdraft",), ():  # a repeat changes nothing, so it needs no word
        done = await credits_command(url, *words, "--key", "k", "--json", *more)
        assert done.exit_code == 0 and (audit[-1][3], json.loads(done.stdout)["overdraft"]) == (Decimal("-10.5"), "0.5")
    assert await account(url, "user:ada") == (Decimal(0), Decimal("0.5"))
    assert (await credits_command(url, *words)).exit_code == 1
    gift = json.loads((await credits_command(url, "grant", "user:ada", "0.25", "--json")).stdout)
    assert (gift["balance"], gift["overdraft"]) == ("0", "0.25"), "what comes repays the debt first"


BOUGHT = "SELECT transaction_id::text FROM add_user_credits($1, 10, 'purchase', 'stripe', $2)"
#: A payment of a package, as Stripe's events leave it.
PURCHASE = """WITH bought AS (
    INSERT INTO credit_purchases (account, package_id, name, credits, price, currency, contents, created_by)
    VALUES ('user:ada', 1, 'Starter', 10, 1000, 'usd', sha256('x'), 'ada') RETURNING purchase_id
) INSERT INTO stripe_payments (payment_intent, purchase_id) SELECT 'pi_1', purchase_id FROM bought"""
GRANTS = "SELECT remaining FROM credit_grants WHERE account = 'user:ada' ORDER BY grant_id"


@pytest.mark.parametrize("named", ["ch_2", "its transaction"])
async def test_a_refund_removes_the_credits_of_its_payment_first_and_not_more_than_the_payment_brought(
    url: str, audit: list[tuple[Any, ...]], named: str
) -> None:
    await rows(url, BOUGHT, "ada", "ch_1")
    [(transaction,)] = await rows(url, BOUGHT, "ada", "ch_2")
    words = ("refund", "user:ada", "4", "--of", "ch_2" if named == "ch_2" else transaction)
    result = await credits_command(url, *words, "--key", "k", "--comment", "late")
    assert result.exit_code == 0 and await rows(url, GRANTS) == [(10,), (6,)]
    assert (await credits_command(url, *words, "--key", "k", "--comment", "late")).exit_code == 0, "a repeat"
    await take(url, "ada", "16")  # used credits are refunded too: they are owed then
    refused = await credits_command(url, "refund", "user:ada", "6.01", "--of", "ch_2")
    assert refused.exit_code == 1 and "payment_refunded: less is left of the payment" in refused.stderr
    rest = ("refund", "user:ada", "6", "--of", transaction)
    assert (await credits_command(url, *rest)).exit_code == 1, "the used credits would be owed"
    assert (await credits_command(url, *rest, "--overdraft")).exit_code == 0
    assert (await credits_command(url, "refund", "user:ada", "0.01", "--of", "ch_2")).exit_code == 1
    assert await account(url, "user:ada") == (Decimal(0), Decimal(6))
    query = "SELECT metadata ->> 'comment', metadata ->> 'refund_of' FROM credit_transactions WHERE amount = -4"
    assert await rows(url, query) == [("late", words[-1])] and audit[0][0] == "credits.refund"


async def test_a_refund_names_a_payment_of_the_account_that_stripe_does_not_refund_itself(
    url: str, audit: list[tuple[Any, ...]]
) -> None:
    [(others,)] = await rows(url, BOUGHT, "bob", "ch_1")
    [(bonus,)] = await rows(url, "SELECT transaction_id::text FROM add_user_credits('ada', 10, 'bonus')")
    for payment in ("ch_1", others, bonus, "ch_9"):
        result = await credits_command(url, "refund", "user:ada", "1", "--of", payment)
        assert result.exit_code == 1 and "unknown_payment: the account has no such payment" in result.stderr, payment
    [(watched,)] = await rows(url, BOUGHT, "ada", "pi_1")
    await rows(url, PURCHASE)
    for payment in ("pi_1", watched):
        result = await credits_command(url, "refund", "user:ada", "1", "--of", payment)
        assert result.exit_code == 1 and "refund_in_stripe: refund this payment in Stripe" in result.stderr, payment
    assert await account(url, "user:ada") == (Decimal(20), Decimal(0)) and audit


#: Keys as this product makes them, of a call, of a batch of calls, of a settled reservation, and of a payment of Stripe's.
OURS = ("call:00ff", "call:00ff:1", "calls:x", "settle:chat-1", "stripe:purchase:ch_1")


async def test_an_operators_key_never_equals_a_key_of_ours(url: str, audit: list[tuple[Any, ...]]) -> None:
    """With the key of a call the call would not be debited; with that of a payment the payment would bring nothing."""
    for key in OURS:
        assert (await credits_command(url, "grant", "user:ada", "1", "--new", "--key", key)).exit_code == 0
        assert (await credits_command(url, "grant", "user:ada", "1", "--new", "--key", key)).exit_code == 0
    assert [line[2] for line in audit[::2]] == list(OURS)
    await reserve(url, "user:ada", "1", "chat-1")
    assert (await rows(url, "SELECT success, new_balance FROM settle_reservation('chat-1', 1)")) == [(True, 4)]
    assert (await rows(url, "SELECT new_balance FROM add_user_credits('ada', 9, 'purchase', 'stripe', 'ch_1')")) == [
        (13,)
    ]
    await credits_command(url, "grant", "user:ada", "1", "--new", "--key", "mine")
    keys = "SELECT idempotency_key FROM credit_transactions ORDER BY created_at DESC LIMIT 1"
    assert await rows(url, keys) == [("7:command:4:mine",)]


async def test_balance_and_transactions_are_shown(url: str) -> None:
    await give(url, "user:ada", "10")
    await give(url, "user:ada", "2", "bonus", datetime(2099, 1, 1, tzinfo=UTC))
    await reserve(url, "user:ada", "3", "c")
    await take(url, "ada", "1")
    result = json.loads((await credits_command(url, "balance", "user:ada", "--json")).stdout)
    assert (result["balance"], result["reserved"], result["overdraft"], result["tier"]) == ("11", "3", "0", "free")
    assert [(grant["remaining"], grant["expires_at"]) for grant in result["grants"]] == [
        ("1", "2099-01-01T00:00:00Z"),
        ("10", None),
    ]
    result = await credits_command(url, "transactions", "user:ada", "--json", "--limit", "2")
    assert [row["amount"] for row in json.loads(result.stdout)["transactions"]] == ["-1", "2"]
    for command in ("balance", "transactions"):
        assert (await credits_command(url, command, "user:ada")).exit_code == 0
        result = await credits_command(url, command, "user:none")
        assert result.exit_code == 1 and "no credits were ever granted to it" in result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("grant", "ada", "1"), "'ada' is not an account. Give user:ID or org:ID"),
        (("grant", "user:ada", "1e"), "AMOUNT: '1e' is not a number. Give dollars"),
        (("grant", "user:ada", "0"), "AMOUNT: 0 is not possible. Give dollars other than 0 and below 1000000000000"),
        (("grant", "user:ada", "--", "-1"), "only an adjustment may be below 0"),
        (("grant", "user:ada", "-1", "--key", "k"), "AMOUNT: -1 is below 0, and only an adjustment may be below 0"),
        (("refund", "user:ada", "-0.5"), "AMOUNT: -0.5 is below 0. Give the amount without its sign"),
        (("grant", "user:ada", "1", "--type", "gift"), "--type: 'gift' is not a type of credits. Give one of bonus"),
        (("refund", "user:ada", "--", "-1"), "AMOUNT: -1 is below 0. Give the amount without its sign"),
        (("refund", "user:ada", "1", "--of", "x" * 256), "--of: a payment is named by at most 255 bytes."),
    ],
)
def test_a_wrong_argument_gives_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    result = CliRunner().invoke(app, ["credits", *words], env={"DATABASE_URL": "postgresql://x@127.0.0.1:1/x"})
    assert result.exit_code == 2 and sentence in result.stderr


WRONG = {
    "balance": "UPDATE user_credits SET balance = balance + 1",
    "overdraft": "UPDATE user_credits SET overdraft = 1",
    "grants": "UPDATE credit_grants SET remaining = remaining - 1",
    "ledger_transaction": "INSERT INTO ledger_entries SELECT transaction_id, 9, 'system:usage', 1 FROM ledger_transactions",
    "audit_trail": "INSERT INTO credit_transactions (account, transaction_type, amount, balance_after, idempotency_key, "
    "ledger_transaction) SELECT 'user:ada', 'bonus', 1, 1, 'x', transaction_id FROM ledger_transactions",
}


@pytest.mark.parametrize("problem", WRONG)
async def test_the_check_finds_changes_that_the_tables_owner_made_by_hand(url: str, problem: str) -> None:
    await give(url, "user:ada", "10")
    result = await credits_command(url, "check")
    assert result.exit_code == 0 and result.stdout == "All credits balance: 1 account, 1 ledger transaction.\n"
    await rows(url, "ALTER TABLE ledger_entries DISABLE TRIGGER ledger_entries_balanced")
    await rows(url, WRONG[problem])
    result = await credits_command(url, "check", "--json")
    found = {row["problem"] for row in json.loads(result.stdout)["wrong"]}
    assert result.exit_code == 1 and problem in found


async def test_the_upkeep_ends_expired_credits_and_exports_the_state_of_the_accounts(url: str) -> None:
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
