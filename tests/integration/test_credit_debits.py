"""The projector debits the calls of prepaid users and orgs, each once, in the transaction that moves its offset."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from connectors.postgres import debits
from schemas.tables import CREDITS
from tests.support import projection
from tests.support.credits import account, balanced, give, prepaid_since, reserve
from tests.support.database import migrated_database, rows
from tests.support.history import TOPICS
from tests.support.projection import Writer

SINCE = "2026-11-20 00:00Z"


def usage(number: int = 1, **fields: Any) -> Any:
    """A billable call of the user `acme`, named by the LiteLLM key."""
    return projection.usage(number, **{"id_kind": "user", **fields})


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        yield url
        await balanced(url)


async def project(url: str, *calls: Any) -> int:
    """Returns the number of debited calls."""
    async with Writer(url) as writer:
        projected = await writer.put(TOPICS.enriched, *calls)
        assert projected is not None
        return projected.rows.get(CREDITS, 0)


async def test_calls_of_a_prepaid_user_are_debited_at_the_billed_amount(url: str) -> None:
    await give(url, "user:acme", "10")
    await prepaid_since(url, SINCE)
    priced = usage(
        2, cost_usd=Decimal(1), billed_usd=Decimal("1.5"), power_level="precision", model="m", tokens_input=7
    )
    free = usage(3, decision="failed_call", cost_usd=Decimal(1))
    assert await project(url, usage(1, cost_usd=Decimal("0.25")), priced, free, usage(4, customer_id="other")) == 2
    query = "SELECT amount, balance_after, model, prompt_tokens, power_level FROM credit_transactions WHERE amount < 0"
    assert await rows(url, query + " ORDER BY balance_after DESC") == [
        (Decimal("-0.25"), Decimal("9.75"), "", 0, None),
        (Decimal("-1.5"), Decimal("8.25"), "m", 7, "precision"),
    ]
    assert await account(url, "user:acme") == (Decimal("8.25"), Decimal(0))


async def test_a_projection_from_the_beginning_changes_no_balance(url: str) -> None:
    await give(url, "user:acme", "1")
    await prepaid_since(url, SINCE)
    calls = [usage(n, cost_usd=Decimal("0.3")) for n in range(5)]
    assert await project(url, *calls) == 5
    before = await account(url, "user:acme")
    assert before == (Decimal(0), Decimal("0.5"))
    for lost in ("projector_offsets", "projector_offsets, llm_usage_log, usage_parts"):
        await rows(url, f"TRUNCATE {lost}")
        assert await project(url, *calls) == 0
    assert await account(url, "user:acme") == before


async def test_a_call_billed_only_by_its_second_record_is_debited_then(url: str) -> None:
    await give(url, "user:acme", "1")
    await prepaid_since(url, SINCE)
    assert await project(url, usage(1, decision="failed_call", part="")) == 0
    assert await project(url, usage(1)) == 1
    assert await project(url, usage(1)) == 0


async def test_the_reservation_names_the_payer_or_else_the_user_pays_or_else_the_org(url: str) -> None:
    for name in ("user:acme", "org:big"):
        await give(url, name, "10")
    await prepaid_since(url, SINCE)
    await reserve(url, "org:big", "5", "c1")
    calls = (
        usage(1, call_id="c1", org_id="big", cost_usd=Decimal(4)),
        usage(2, org_id="big", cost_usd=Decimal(2)),
        usage(3, customer_id="nobody", org_id="big", cost_usd=Decimal(1)),
    )
    assert await project(url, *calls) == 3
    assert [(await account(url, name))[0] for name in ("user:acme", "org:big")] == [Decimal(8), Decimal(5)]
    query = "SELECT settled_at IS NOT NULL, identity FROM credit_reservations"
    assert await rows(url, query) == [(True, bytes.fromhex(f"{1:032x}"))]


async def test_a_call_without_cost_ends_its_reservation(url: str) -> None:
    await give(url, "user:acme", "10")
    await reserve(url, "user:acme", "5", "c1")
    assert await project(url, usage(1, call_id="c1", decision="cache_hit", status="success", part="")) == 0
    assert (await reserve(url, "user:acme", "10", "c2"))[0] is True


async def test_a_call_settled_by_a_function_call_is_not_debited_again(url: str) -> None:
    await give(url, "user:acme", "10")
    await prepaid_since(url, SINCE)
    await reserve(url, "user:acme", "5", "c1")
    await rows(url, "SELECT settle_reservation('c1', 3)")
    first, second = (usage(n, call_id="c1", cost_usd=Decimal(1)) for n in (1, 2))
    assert await project(url, first) == 0
    # Another call under the same id is no copy of it.
    assert await project(url, first, second) == 1
    assert await account(url, "user:acme") == (Decimal(6), Decimal(0))
    # Nor if both come at once, after a record that cost nothing.
    await reserve(url, "user:acme", "1", "c3")
    await rows(url, "SELECT settle_reservation('c3', 0.5)")
    failed, *both = (usage(n, call_id="c3", cost_usd=Decimal(int(n > 10))) for n in (10, 11, 12))
    assert await project(url, failed, *both) == 1
    await give(url, "user:acme", "1.5")
    # And the other way round.
    await reserve(url, "user:acme", "5", "c2")
    assert await project(url, usage(3, call_id="c2", cost_usd=Decimal(2))) == 1
    assert (await rows(url, "SELECT success, new_balance FROM settle_reservation('c2', 2)")) == [(True, Decimal(4))]


@pytest.mark.parametrize(
    ("since", "end"),
    [
        ("2026-11-20 12:00:02Z", "2026-11-20T12:00:01.500000Z"),
        ("2026-11-20 11:00:00Z", "2026-11-20T10:59:59.000000Z"),
        ("2026-11-20 12:00:00.5Z", "2026-11-20T12:00:01.500000Z"),
    ],
    ids=["both", "it ended before", "it was counted before"],
)
async def test_calls_before_an_account_was_prepaid_are_not_debited(url: str, since: str, end: str) -> None:
    """The records of this test have the time 12:00."""
    await give(url, "user:acme", "10")
    await prepaid_since(url, since)
    assert await project(url, usage(1, end=end), usage(2, end=end, customer_id="x", org_id="acme")) == 0
    assert await account(url, "user:acme") == (Decimal(10), Decimal(0))


async def test_a_debit_beyond_the_balance_is_owed_by_the_account(url: str) -> None:
    await give(url, "org:big", "0.5")
    await prepaid_since(url, SINCE)
    assert await project(url, *(usage(n, org_id="big", cost_usd=Decimal("0.2")) for n in range(4))) == 4
    assert await account(url, "org:big") == (Decimal(0), Decimal("0.3"))
    assert await rows(url, "SELECT account, sum(amount) FROM ledger_entries GROUP BY 1 ORDER BY 1") == [
        ("org:big", Decimal(0)),
        ("overdraft:org:big", Decimal("-0.3")),
        ("system:payments", Decimal("-0.5")),
        ("system:usage", Decimal("0.8")),
    ]


async def test_a_batch_uses_the_grants_that_expire_first(url: str) -> None:
    for year in (None, 2099, 2098):
        await give(url, "user:acme", "3", "bonus", datetime(year, 1, 1, tzinfo=UTC) if year else None)
    await prepaid_since(url, SINCE)
    await project(url, *(usage(n, cost_usd=Decimal(1)) for n in range(4)))
    assert await rows(url, "SELECT remaining FROM credit_grants ORDER BY grant_id") == [(3,), (2,), (0,)]


async def test_a_batch_uses_no_expired_credits(url: str) -> None:
    """It does not matter whether the upkeep has run since their expiry."""
    await give(url, "user:acme", "3", "bonus", datetime(2020, 1, 1, tzinfo=UTC))
    await prepaid_since(url, SINCE)
    assert await project(url, usage(1, cost_usd=Decimal(1))) == 1
    assert await account(url, "user:acme") == (Decimal(0), Decimal(1))


async def test_debits_of_an_uncommitted_batch_do_not_exist(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await give(url, "user:acme", "10")
    await prepaid_since(url, SINCE)

    async def fails(connection: Any, *given: Any) -> None:
        await debits.debit(connection, *given)
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr("connectors.postgres.projection.debit", fails)
        with pytest.raises(RuntimeError):
            await project(url, usage(1))
    assert await account(url, "user:acme") == (Decimal(10), Decimal(0))
    assert await project(url, usage(1)) == 1


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_batch_without_prepaid_accounts_needs_one_query(*, elsewhere: bool) -> None:
    """Users without credits cost almost nothing, also if other users have credits."""
    asked = []

    class Counting:
        async def fetchrow(self, query: str, *arguments: Any) -> tuple[list[str], bool, bool, bool]:
            asked.append(arguments)
            return [], False, elsewhere, False

    found = [("", *[f"{n % 3}"] * 28, "", "", None) for n in range(4000)]
    assert await debits.debit(Counting(), found, ("user",)) is None
    assert [sorted(names) for (names,) in asked] == [["org:0", "org:1", "org:2", "user:0", "user:1", "user:2"]]
