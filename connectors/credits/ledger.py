"""The credits of users and orgs in Postgres. Every change is on disk before a method returns.

The rules are implemented by functions of the database (connectors/postgres/migrations), which lock an account's row. So
the rules apply to every process. The functions also make their transaction wait for the disk. Each is called as one
statement, so that the row is locked only shortly.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from connectors.credits.account_turns import AccountTurns
from connectors.credits.idempotency_keys import key_of_parts
from connectors.postgres.pool import Database
from schemas.errors import Rejected

_BALANCE = """
SELECT a.account, get_account_balance(a.account) AS balance, COALESCE(c.overdraft, 0) AS overdraft, c.tier, (
    SELECT COALESCE(sum(r.amount), 0) FROM credit_reservations r
    WHERE r.account = a.account AND r.settled_at IS NULL AND r.released_at IS NULL AND r.expires_at > now()
) AS reserved
FROM (SELECT $1::text AS account) a LEFT JOIN user_credits c USING (account)
"""
_TRANSACTIONS = """
SELECT transaction_id, transaction_type, amount, balance_after, created_at, provider, model, prompt_tokens, completion_tokens,
    power_level, payment_method, stripe_transaction_id, package_id, metadata
FROM credit_transactions WHERE account = $1 ORDER BY created_at DESC, transaction_id LIMIT $2 OFFSET $3
"""
_PACKAGES = """
SELECT package_id, name, description, credits, bonus_credits, price_usd AS price
FROM credit_packages WHERE active ORDER BY price_usd, package_id LIMIT 200
"""
_DEBIT = "SELECT * FROM debit_account_credits($1, $2, $3, $4, $5, $6, $7, $8::jsonb)"
_AUTHORIZE = """
SELECT a.*, a.authorized OR EXISTS (SELECT FROM user_credits WHERE account = $1) AS is_known
FROM authorize_credits($1, $2, $3, $4, $5) a
"""
_RESERVATION = "SELECT account FROM credit_reservations WHERE reservation_id = $1"
_RELEASE = """
UPDATE credit_reservations SET released_at = now()
WHERE reservation_id = $1 AND settled_at IS NULL AND released_at IS NULL AND expires_at > now() RETURNING account
"""
#: An account is made by its first credits, so a misspelt id looks like a new account.
NO_ACCOUNT: Final = "no credits were ever granted to the account: is its id right, and is it user:ID or org:ID?"


class AccountBalance(NamedTuple):
    """See `connectors.api.credit_models.BalanceShown`; `tier`: None = the account has no row."""

    account: str
    balance: Decimal
    overdraft: Decimal
    tier: str | None
    reserved: Decimal


class DebitUsage(NamedTuple):
    """The usage for which an account is debited."""

    cost: Decimal
    provider: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    power_level: str
    metadata: Mapping[str, Any]


class Debit(NamedTuple):
    """A new or a repeated debit."""

    transaction_id: UUID
    new_balance: Decimal


class Reservation(NamedTuple):
    """The result of an authorisation; `reservation_id` None = refused, and nothing is reserved. `is_known`: the account
    exists; otherwise it never had credits, or its id is misspelt.
    """

    reservation_id: UUID | None
    available: Decimal
    is_known: bool = True


class CreditLedger:
    """The credit accounts. All methods raise Unavailable if Postgres does not answer.

    Args:
        slow: the connections for lists; None = the same.
        turns: the turns of the process; None = the requests of an account do not wait for each other in the process.
    """

    def __init__(self, database: Database, slow: Database | None = None, turns: AccountTurns | None = None) -> None:
        self._database = database
        self._slow = slow or database
        self._turns = turns

    async def balance(self, account: str) -> AccountBalance:
        """Return the account's present credits; an unknown account has 0."""
        async with self._database.connection() as connection:
            return AccountBalance(*await connection.fetchrow(_BALANCE, account))

    async def transactions(self, account: str, limit: int, offset: int) -> list[dict[str, Any]]:
        """Return a page of the account's transactions, the latest first."""
        async with self._slow.connection() as connection:
            rows = [dict(row) for row in await connection.fetch(_TRANSACTIONS, account, limit, offset)]
        return [{**row, "metadata": json.loads(row["metadata"])} for row in rows]

    async def packages(self) -> list[dict[str, Any]]:
        """Return the packages that can be bought, the cheapest first."""
        async with self._database.connection() as connection:
            return [dict(row) for row in await connection.fetch(_PACKAGES)]

    async def debit(self, account: str, usage: DebitUsage, key: str) -> Debit:
        """Take credits from an account, once for each key.

        Raises:
            Rejected: `insufficient_credits`: the balance does not cover the cost, and nothing is changed;
                `idempotency_conflict`: the key was used for something else.
        """
        metadata = json.dumps({**usage.metadata, "idempotency_key": key_of_parts("api", account, key)})
        async with self._turn(account), self._database.connection() as connection:
            row = await connection.fetchrow(_DEBIT, account, *usage[:-1], metadata)
        if not row["success"]:
            sentence = (
                "the balance does not cover the cost" if row["error_message"] != "no credit account" else NO_ACCOUNT
            )
            raise Rejected("insufficient_credits", sentence)
        return Debit(row["transaction_id"], row["new_balance"])

    async def authorize(
        self, account: str, estimate: Decimal, ttl_s: int, call_id: str, overdraft: Decimal
    ) -> Reservation:
        """Reserve credits for a new call, if balance and overdraft cover it in addition to all other reservations."""
        async with self._turn(account), self._database.connection() as connection:
            row = await connection.fetchrow(_AUTHORIZE, account, estimate, ttl_s, call_id, overdraft)
        return Reservation(row["reservation_id"] if row["authorized"] else None, row["available"], row["is_known"])

    async def account_of(self, reservation: UUID) -> str | None:
        """Return the account of a reservation; None = there is no such reservation."""
        async with self._database.connection() as connection:
            account: str | None = await connection.fetchval(_RESERVATION, reservation)
        return account

    async def release(self, reservation: UUID) -> bool:
        """Release a reservation; False = it was settled, released or expired before."""
        async with self._database.lasting() as connection:
            return await connection.fetchval(_RELEASE, reservation) is not None

    def _turn(self, account: str) -> AbstractAsyncContextManager[None]:
        return nullcontext() if self._turns is None else self._turns.turn(account)
