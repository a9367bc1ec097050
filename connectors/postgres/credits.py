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
from schemas.money import EXACT, plain

#: The refusals of the SQL functions, by SQLSTATE.
_REFUSED: Final = {
    "MB001": ("idempotency_conflict", "the key was used for another movement"),
    "MB004": ("unknown_payment", "the account has no such payment"),
    "MB005": ("payment_refunded", "less is left of the payment than is refunded"),
}
#: Selects what an account owes beyond its balance.
_OWED: Final = "SELECT COALESCE((SELECT overdraft FROM user_credits WHERE account = $1), 0)"
_ADD: Final = "SELECT new_balance, transaction_id FROM add_account_credits($1, $2, $3, 'manual', NULL, NULL, $4::jsonb)"
#: Selects whether Stripe's events take back the credits of refunds of this payment.
_WATCHED: Final = """
SELECT EXISTS (
    SELECT FROM stripe_payments s JOIN credit_transactions t ON t.stripe_transaction_id = s.payment_intent
    WHERE s.purchase_id IS NOT NULL AND t.account = $1 AND (s.payment_intent = $2 OR t.transaction_id::text = $2)
)
"""
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
    """A movement: the balance after it, its id, and what the account owes now."""

    new_balance: Decimal
    transaction_id: UUID
    overdraft: Decimal


class Checked(NamedTuple):
    """The number of checked items, and the imbalances: problem, place, expected, found."""

    accounts: int
    transactions: int
    wrong: list[tuple[str, str, Decimal, Decimal]]


async def add_credits(
    url: str,
    account: str,
    amount: Decimal,
    kind: str,
    key: str,
    expires_at: datetime | None,
    note: Mapping[str, str],
    *,
    may_overdraw: bool = False,
) -> Added:
    """Add credits to an account, or take them back with a negative `refund` or `adjustment`, once per key.

    Args:
        account: `user:<id>` or `org:<id>`; it is made if it does not exist.
        amount: dollars.
        kind: `purchase`, `bonus`, `refund` or `adjustment`.
        key: a key that no call, no Stripe event and no client of the API uses (`key_of_parts`).
        note: further facts for the audit trail. `refund_of`: the payment that is refunded: Stripe's id of it, or the
            `transaction_id` of its purchase. The remaining credits of that payment are taken first.
        may_overdraw: whether more may be taken than the balance; the rest is owed then.

    Raises:
        Rejected: `insufficient_credits`: the balance does not cover a negative amount, and nothing is changed;
            `idempotency_conflict`: the key was used for another movement; `unknown_payment`: the account has no such payment;
            `payment_refunded`: its remaining amount is smaller; `refund_in_stripe`: Stripe's event takes the credits
            back, so they would be taken twice; `row_refused`: an argument is out of range.
        Unavailable: Postgres does not answer; repeating with the same key is safe.
    """
    facts = {**note, "idempotency_key": key}
    if expires_at is not None:
        facts["expires_at"] = expires_at.isoformat()
    async with connected(url) as connection:
        if "refund_of" in note and await connection.fetchval(_WATCHED, account, note["refund_of"]):
            raise Rejected("refund_in_stripe", "refund this payment in Stripe, whose event takes the credits back")
        try:
            async with connection.transaction():
                owed = await connection.fetchval(_OWED, account)
                added = await connection.fetchrow(_ADD, account, amount, kind, json.dumps(facts))
                owes = await connection.fetchval(_OWED, account)
                if amount < 0 and owes > owed and not may_overdraw:  # a repeat changes nothing, so it is not refused
                    raise _not_covered(-amount, owes - owed)
                return Added(added[0], added[1], owes)
        except asyncpg.PostgresError as error:
            if error.sqlstate in _REFUSED:
                raise Rejected(*_REFUSED[error.sqlstate]) from error
            raise


def _not_covered(usd: Decimal, missing: Decimal) -> Rejected:
    there = plain(EXACT.subtract(usd, missing))
    return Rejected(
        "insufficient_credits",
        f"the balance is {there} USD, so {plain(usd)} USD would leave {plain(missing)} USD owed. Nothing was taken. Give at most "
        f"{there}, or --overdraft",
    )


async def balance_of(url: str, account: str) -> dict[str, Any] | None:
    """Return an account with its open grants, in the order of their use; None: the account does not exist. Raises:
    Unavailable.
    """
    async with connected(url) as connection:
        row = await connection.fetchrow(_BALANCE, account)
        if row is None:
            return None
        return {**dict(row), "grants": [dict(grant) for grant in await connection.fetch(_GRANTS, account)]}


async def transactions_of(url: str, account: str, limit: int, offset: int) -> list[dict[str, Any]]:
    """Return a page of the account's transactions, the latest first. Raises: Unavailable."""
    async with connected(url) as connection:
        return [dict(row) for row in await connection.fetch(_TRANSACTIONS, account, limit, offset)]


async def checked(url: str, limit: int = 1000) -> Checked:
    """Check all accounts: every transaction, balance, overdraft and grant. Raises: Unavailable."""
    async with connected(url) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        wrong = [tuple(row) for row in await connection.fetch(_CHECK, limit)]
        accounts, transactions = await connection.fetchrow(_COUNTS)
        return Checked(accounts, transactions, wrong)
