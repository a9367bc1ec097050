"""Asks Postgres whether an id of a customer, an org or a credit account is known, and which known ids are like it.

A misspelt id must not look like one that has no usage, and must not become a new account.
"""

from typing import Any, Final, NamedTuple

from connectors.operations.near_names import ID_ALIKE, did_you_mean
from connectors.postgres.pool import Database

#: Mapped customers have a row. Others are known by their usage.
_CUSTOMER: Final = """
SELECT EXISTS (SELECT FROM customer_records WHERE litellm_customer_id = $1)
    OR EXISTS (SELECT FROM llm_usage_log WHERE customer_id = $1)
"""
#: An org that was made in Lago alone is known by its usage.
_ORG: Final = """
SELECT EXISTS (SELECT FROM organisations WHERE org_id = $1)
    OR EXISTS (SELECT FROM llm_usage_log WHERE org_id = $1 AND org_id <> '')
    OR EXISTS (SELECT FROM usage_parts WHERE org_id = $1)
"""
_ACCOUNT: Final = "SELECT EXISTS (SELECT FROM user_credits WHERE account = $1)"
#: A misspelt id differs by few letters, so ids of other lengths are not compared.
_CUSTOMERS: Final = """
SELECT litellm_customer_id FROM customer_records
WHERE length(litellm_customer_id) BETWEEN length($1::text) - 2 AND length($1::text) + 2 ORDER BY 1 LIMIT 20000
"""
_ORGS: Final = """
SELECT org_id FROM organisations
WHERE length(org_id) BETWEEN length($1::text) - 2 AND length($1::text) + 2 ORDER BY 1 LIMIT 20000
"""
_ACCOUNTS: Final = """
SELECT account FROM user_credits
WHERE length(account) BETWEEN length($1::text) - 2 AND length($1::text) + 2 ORDER BY 1 LIMIT 20000
"""
_USER, _OF_ORG = "user:", "org:"


class KnownId(NamedTuple):
    """Whether an id is known; otherwise `meant` is a question with the known id that is most like it, or `""`."""

    known: bool
    meant: str = ""


async def known_principal(database: Database, name: str) -> KnownId:
    """Look up a LiteLLM customer id or an org. Raises: Unavailable: Postgres does not answer."""
    return await _known(database, name, (_CUSTOMER, _ORG), (_CUSTOMERS, _ORGS))


async def known_customer(database: Database, name: str) -> KnownId:
    """Look up a LiteLLM customer id. Raises: Unavailable: Postgres does not answer."""
    return await _known(database, name, (_CUSTOMER,), (_CUSTOMERS,))


async def known_org(database: Database, org_id: str) -> KnownId:
    """Look up an org. Raises: Unavailable: Postgres does not answer."""
    return await _known(database, org_id, (_ORG,), (_ORGS,))


async def known_account(database: Database, account: str) -> KnownId:
    """Look up a credit account, or the org or the customer whose account it would be.

    Args:
        account: `user:ID` or `org:ID`.

    Raises:
        Unavailable: Postgres does not answer.
    """
    found = await _known(database, account, (_ACCOUNT,), (_ACCOUNTS,))
    if found.known:
        return found
    kind, name = (_OF_ORG, account[len(_OF_ORG) :]) if account.startswith(_OF_ORG) else (_USER, account[len(_USER) :])
    exists, names = (_ORG, _ORGS) if kind == _OF_ORG else (_CUSTOMER, _CUSTOMERS)
    owner = await _known(database, name, (exists,), (names,), kind)
    return owner if owner.known else KnownId(known=False, meant=owner.meant or found.meant)


async def _known(
    database: Database, name: str, exists: tuple[str, ...], like: tuple[str, ...], prefix: str = ""
) -> KnownId:
    async with database.connection() as connection:
        for query in exists:
            if await connection.fetchval(query, name):
                return KnownId(known=True)
        near: list[Any] = [row[0] for query in like for row in await connection.fetch(query, name)]
    return KnownId(known=False, meant=did_you_mean(prefix + name, [prefix + one for one in near], ID_ALIKE))
