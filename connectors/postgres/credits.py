"""The credits of accounts for commands: every rule is in the functions of migrations/0013_credit_functions.sql."""

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg

from connectors.postgres.pool import connected
from schemas.errors import Rejected

#: SQLSTATE of an idempotency key that was used for another movement.
_OTHER_CONTENTS: Final = "MB001"
_ADD: Final = "SELECT new_balance, transaction_id FROM add_account_credits($1, $2, $3, 'manual', NULL, NULL, $4::jsonb)"
_BALANCE: Final = """
SELECT
    c.account, c.tier, get_account_balance(c.account) AS balance, c.overdraft, c.overdraft_policy,
    GREATEST(c.balance - available_credits(c, 0), 0) AS reserved, c.prepaid_since
FROM user_credits c WHERE c.account = $1
"""
_GRANTS: Final = """
SELECT remaining, amount, expires_at, created_at
FROM credit_grants WHERE account = $1 AND remaining > 0 ORDER BY expires_at, grant_id LIMIT 1000
"""
_TRANSACTIONS: Final = """
SELECT created_at, transaction_type, amount, balance_after, provider, model, idempotency_key, transaction_id
FROM credit_transactions WHERE account = $1 ORDER BY created_at DESC, transaction_id LIMIT $2 OFFSET $3
"""
_CHECK: Final = "SELECT problem, place, expected, found FROM credit_imbalances ORDER BY problem, place LIMIT $1"
_COUNTS: Final = "SELECT (SELECT count(*) FROM user_credits), (SELECT count(*) FROM ledger_transactions)"


class Added(NamedTuple):
    """A movement: the balance after it, and its id."""

    new_balance: Decimal
    transaction_id: UUID


class Checked(NamedTuple):
    """What was checked, and what does not balance: problem, place, expected, found."""

    accounts: int
    transactions: int
    wrong: list[tuple[str, str, Decimal, Decimal]]


async def add_credits(
    url: str, account: str, amount: Decimal, kind: str, key: str, expires_at: datetime | None, note: Mapping[str, str]
) -> Added:
    """Add credits to an account, or take them back with a negative `refund` or `adjustment`, once for each key.

    Args:
        account: `user:<id>` or `org:<id>`; it is made if there is none.
        amount: dollars.
        kind: `purchase`, `bonus`, `refund` or `adjustment`.
        note: further facts for the audit trail.

    Raises:
        Rejected: `idempotency_conflict`: the key was used for another movement; `row_refused`: an argument is out of range.
        Unavailable: Postgres does not answer; repeating with the same key is safe.
    """
    facts = {**note, "idempotency_key": key}
    if expires_at is not None:
        facts["expires_at"] = expires_at.isoformat()
    async with connected(url) as connection:
        try:
            return Added(*await connection.fetchrow(_ADD, account, amount, kind, json.dumps(facts)))
        except asyncpg.PostgresError as error:
            if error.sqlstate == _OTHER_CONTENTS:
                raise Rejected("idempotency_conflict", "the key was used for another movement") from error
            raise


async def balance_of(url: str, account: str) -> dict[str, Any] | None:
    """An account with its open grants, those first that are used first; None: there is no such account. Raises: Unavailable."""
    async with connected(url) as connection:
        row = await connection.fetchrow(_BALANCE, account)
        if row is None:
            return None
        return {**dict(row), "grants": [dict(grant) for grant in await connection.fetch(_GRANTS, account)]}


async def transactions_of(url: str, account: str, limit: int, offset: int) -> list[dict[str, Any]]:
    """A page of the account's transactions, the latest first. Raises: Unavailable."""
    async with connected(url) as connection:
        return [dict(row) for row in await connection.fetch(_TRANSACTIONS, account, limit, offset)]


async def checked(url: str, limit: int = 1000) -> Checked:
    """Check all of the books: every transaction, balance, overdraft and grant. Raises: Unavailable."""
    async with connected(url) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        wrong = [tuple(row) for row in await connection.fetch(_CHECK, limit)]
        accounts, transactions = await connection.fetchrow(_COUNTS)
        return Checked(accounts, transactions, wrong)
