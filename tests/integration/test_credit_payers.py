"""Whose credits a call uses: never those of an account that only the client named, by an id or by the id of a call."""

from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from typing import Any

import pytest

from connectors.postgres.projection import PostgresProjection
from schemas.tables import CREDITS
from tests.support.credits import account, balanced, give, prepaid_since, reserve
from tests.support.database import migrated_database, rows
from tests.support.history import TOPICS
from tests.support.projection import Writer, usage

SINCE = "2026-11-20 00:00Z"
OPEN = "SELECT count(*) FROM credit_reservations WHERE settled_at IS NULL AND released_at IS NULL"


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    async with migrated_database(postgres_url) as url:
        for name in ("user:ada", "user:eve", "org:acme"):
            await give(url, name, "10")
        await prepaid_since(url, SINCE)
        yield url
        await balanced(url)


async def project(url: str, *calls: Any, kinds: tuple[str, ...] | None = None) -> tuple[int, Mapping[str, int]]:
    """How many calls were debited, and how many were not, by reason."""
    async with Writer(url) as writer:
        if kinds is not None:
            writer.projection = PostgresProjection(writer.database, TOPICS, kinds)
        projected = await writer.put(TOPICS.enriched, *calls)
        assert projected is not None
        result = {reason: count for reason, count in projected.undebited.items() if count}
        return projected.rows.get(CREDITS, 0), result


async def net_balances(url: str, *names: str) -> list[Decimal]:
    """The balances of the accounts, without their debts."""
    return [balance - owed for balance, owed in [await account(url, name) for name in names]]


@pytest.mark.parametrize("kind", ["end_user", "customer", "subscription"])
async def test_a_client_that_names_another_user_spends_none_of_that_users_credits(url: str, kind: str) -> None:
    call = usage(1, customer_id="ada", id_kind=kind, cost_usd=Decimal(1))
    assert await project(url, call) == (0, {"client_chose_user": 1})
    assert await net_balances(url, "user:ada") == [Decimal(10)]
    query = "SELECT account, customer_id, id_kind, billed_usd FROM undebited_calls"
    assert await rows(url, query) == [("user:ada", "ada", kind, Decimal(1))]


async def test_a_client_that_names_an_end_user_is_debited_as_the_user_of_its_key(url: str) -> None:
    call = usage(1, customer_id="ada", user_id="eve", cost_usd=Decimal(1))
    assert await project(url, call) == (1, {})
    assert await net_balances(url, "user:ada", "user:eve") == [Decimal(10), Decimal(9)]
    # A sender that names the customer itself may take the user from its client.
    assert (await project(url, usage(2, customer_id="x", id_kind="customer", user_id="ada")))[0] == 0
    assert await rows(url, "SELECT count(*) FROM undebited_calls") == [(0,)]


@pytest.mark.parametrize("kind", ["user", "team", "organization", "key"])
async def test_an_id_set_by_the_key_names_the_user_who_pays(url: str, kind: str) -> None:
    assert await project(url, usage(1, customer_id="ada", id_kind=kind, cost_usd=Decimal(1))) == (1, {})
    assert await net_balances(url, "user:ada") == [Decimal(9)]


async def test_credits_user_kinds_says_which_kinds_name_a_user(url: str) -> None:
    calls = [
        usage(1, customer_id="ada", cost_usd=Decimal(1)),
        usage(2, customer_id="eve", id_kind="user", user_id="eve"),
    ]
    assert await project(url, *calls, kinds=("end_user",)) == (1, {"client_chose_user": 1})
    assert await net_balances(url, "user:ada", "user:eve") == [Decimal(9), Decimal(10)]


async def test_the_org_of_the_calls_customer_pays(url: str) -> None:
    assert await project(url, usage(1, customer_id="ada", org_id="acme", cost_usd=Decimal(1))) == (1, {})
    assert await net_balances(url, "user:ada", "org:acme") == [Decimal(10), Decimal(9)]


async def test_a_call_with_the_id_of_anothers_call_neither_spends_nor_ends_its_reservation(url: str) -> None:
    await reserve(url, "user:ada", "5", "c1")
    theft = usage(1, customer_id="eve", id_kind="user", status="success", call_id="c1", cost_usd=Decimal(4))
    beside = usage(9, customer_id="ada", id_kind="user", status="success", call_id="c9", cost_usd=Decimal(0))
    assert await project(url, theft, beside) == (1, {"others_reservation": 1})
    stranger = usage(2, customer_id="who", status="success", call_id="c1", cost_usd=Decimal(4))
    assert await project(url, stranger) == (0, {"others_reservation": 1})
    assert await net_balances(url, "user:ada", "user:eve") == [Decimal(10), Decimal(6)]
    assert await rows(url, OPEN) == [(1,)]
    assert await project(url, usage(3, customer_id="ada", id_kind="user", call_id="c1", cost_usd=Decimal(2))) == (1, {})
    assert await net_balances(url, "user:ada") == [Decimal(8)]
    assert await rows(url, OPEN) == [(0,)]


async def test_a_settlement_of_another_account_pays_for_no_call_of_this_one(url: str) -> None:
    """By settle_reservation, for calls that do not arrive as usage."""
    await reserve(url, "user:ada", "5", "c1")
    await rows(url, "SELECT settle_reservation('c1', 3)")
    mine = usage(1, customer_id="eve", id_kind="user", call_id="c1", cost_usd=Decimal(4))
    assert await project(url, mine) == (1, {})
    assert await net_balances(url, "user:ada", "user:eve") == [Decimal(7), Decimal(6)]


@pytest.mark.parametrize(
    "ended", ["released_at = now()", "settled_at = now(), identity = 'another'", "settled_at = now()"]
)
async def test_an_ended_reservation_names_no_payer(url: str, ended: str) -> None:
    await reserve(url, "org:acme", "5", "c1")
    await rows(url, f"UPDATE credit_reservations SET {ended}")
    call = usage(1, customer_id="ada", id_kind="user", org_id="acme", call_id="c1", cost_usd=Decimal(1))
    assert await project(url, call) == (1, {})
    assert await net_balances(url, "user:ada", "org:acme") == [Decimal(9), Decimal(10)]


async def test_a_reservation_that_ended_while_the_projector_was_stopped_names_the_payer(url: str) -> None:
    """The payer does not depend on when the call is projected."""
    await reserve(url, "org:acme", "5", "c1")
    await rows(url, "UPDATE credit_reservations SET expires_at = '2026-11-20 12:00:01Z', released_at = now()")
    call = usage(1, customer_id="ada", id_kind="user", org_id="acme", call_id="c1", cost_usd=Decimal(1))
    assert await project(url, call) == (1, {})
    assert await net_balances(url, "user:ada", "org:acme") == [Decimal(10), Decimal(9)]
    # One that ended before the call was counted does not.
    await reserve(url, "org:acme", "5", "c2")
    await rows(url, "UPDATE credit_reservations SET expires_at = '2026-11-20 11:59Z' WHERE call_id = 'c2'")
    await project(url, usage(2, customer_id="ada", id_kind="user", org_id="acme", call_id="c2", cost_usd=Decimal(1)))
    assert await net_balances(url, "user:ada", "org:acme") == [Decimal(9), Decimal(9)]


@pytest.mark.parametrize("cost", ["0", "1"])
async def test_a_failed_attempt_leaves_the_reservation_to_its_retry(url: str, cost: str) -> None:
    await reserve(url, "user:ada", "8", "c1")
    mine = {"customer_id": "ada", "id_kind": "user", "call_id": "c1"}
    decision = "failed_call" if cost == "0" else "failed_with_cost"
    failed = usage(1, **mine, status="failure", decision=decision, cost_usd=Decimal(cost))
    assert (await project(url, failed))[0] == int(cost)
    assert (await reserve(url, "user:ada", "8", "c2"))[0] is False
    assert await rows(url, OPEN) == [(1,)]
    assert (await project(url, usage(2, **mine, status="success", cost_usd=Decimal(2))))[0] == 1
    assert await rows(url, OPEN) == [(0,)]
    assert await net_balances(url, "user:ada") == [Decimal(8) - int(cost)]
    # A repeat of it changes nothing.
    await rows(url, "TRUNCATE projector_offsets, llm_usage_log, usage_parts")
    assert (await project(url, failed, usage(2, **mine, status="success", cost_usd=Decimal(2))))[0] == 0


async def test_a_reservation_of_the_keys_litellm_org_is_settled_too(url: str) -> None:
    """The plugin knows the key's org under LiteLLM's name."""
    await reserve(url, "org:acme", "5", "c1")
    call = usage(1, org_id="other", organization_id="acme", call_id="c1", cost_usd=Decimal(1))
    assert (await project(url, call))[0] == 1
    assert await net_balances(url, "org:acme") == [Decimal(9)]
    # Without a reservation the org of the mapping pays.
    assert (await project(url, usage(2, org_id="other", organization_id="acme")))[0] == 0
