"""Prepaid credits for tests: short calls of the database's functions, and a check that must always hold."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg

from tests.support.database import rows


async def give(
    url: str, account: str, amount: str, kind: str = "purchase", expires_at: datetime | None = None, **facts: Any
) -> Any:
    """Add credits; the row of the answer."""
    result = facts | ({"expires_at": expires_at.isoformat()} if expires_at else {})
    statement = "SELECT * FROM add_account_credits($1, $2, $3, p_metadata => $4::jsonb)"
    return (await rows(url, statement, account, Decimal(amount), kind, json.dumps(result)))[0]


async def take(url: str, user: str, cost: str, **facts: Any) -> Any:
    """Debit a user for a call; the row of the answer."""
    statement = "SELECT * FROM debit_user_credits($1, $2, 'openai', 'gpt-5', 10, 5, 'balanced', $3::jsonb)"
    return (await rows(url, statement, user, Decimal(cost), json.dumps(facts)))[0]


async def reserve(url: str, account: str, amount: str, call_id: str, ttl_s: int = 60, overdraft: str = "0") -> Any:
    """Reserve credits; the row of the answer."""
    statement = "SELECT * FROM authorize_credits($1, $2, $3, $4, $5)"
    return (await rows(url, statement, account, Decimal(amount), ttl_s, call_id, Decimal(overdraft)))[0]


async def account(url: str, name: str) -> tuple[Decimal, Decimal]:
    """Balance and overdraft."""
    [found] = await rows(url, "SELECT balance, overdraft FROM user_credits WHERE account = $1", name)
    return found[0], found[1]


async def prepaid_since(url: str, moment: str) -> None:
    """Make all accounts prepaid since this moment, because the calls of the tests are older than their databases."""
    await rows(url, "UPDATE user_credits SET prepaid_since = $1::text::timestamptz", moment)


async def balanced(url: str) -> None:
    """Raises: AssertionError: the books do not balance."""
    assert await rows(url, "SELECT * FROM credit_imbalances") == []


async def sqlstate(url: str, statement: str, *arguments: Any) -> str:
    """Return the SQLSTATE of the error that a statement ends with; `""`: of none."""
    try:
        await rows(url, statement, *arguments)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    return ""
