"""The table `api_keys`. It is not a projection of a topic, so a change is on disk before a method returns."""

from collections.abc import Mapping
from dataclasses import astuple
from datetime import datetime
from typing import Any

from connectors.access.keys import ApiKey
from connectors.access.scopes import current_scopes
from connectors.postgres.pool import Database
from schemas.errors import Rejected

_COLUMNS = (
    "key_id, hash, name, scopes, orgs, created_at, created_by, expires_at, last_used_at, revoked_at, rotated_from, "
    "customer_prefixes"
)
_LIVE = f"SELECT {_COLUMNS} FROM api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)"  # noqa: S608  # our own words
_ALL = f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at DESC, key_id LIMIT $1"  # noqa: S608
_ONE = f"SELECT {_COLUMNS} FROM api_keys WHERE key_id = $1"  # noqa: S608
_ADD = f"INSERT INTO api_keys ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"  # noqa: S608
_SHORTEN = """
UPDATE api_keys SET expires_at = LEAST(COALESCE(expires_at, $2), $2)
WHERE key_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
AND NOT EXISTS (SELECT FROM api_keys WHERE rotated_from = $1)
"""
_REVOKE = "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $2) WHERE key_id = $1"
_USED = """
UPDATE api_keys k SET last_used_at = GREATEST(k.last_used_at, u.at)
FROM unnest($1::text[], $2::timestamptz[]) AS u (key_id, at) WHERE k.key_id = u.key_id
"""
_LOCKED = "SELECT key_id FROM api_keys WHERE key_id = $1 FOR UPDATE"
_COUNTED = "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
#: The maximum number of listed keys.
MOST_LISTED = 1000
#: Every process reads all live keys every two seconds, so their number is limited.
MOST_LIVE = 1000


class PostgresKeys:
    """Stores API keys. All methods raise Unavailable, and ConfigurationError if the deployment has no Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def live(self, now: datetime) -> list[ApiKey]:
        """Return the keys that are neither revoked nor expired."""
        async with self._database.connection() as connection:
            return [_key(row) for row in await connection.fetch(_LIVE, now)]

    async def all(self) -> list[ApiKey]:
        """Return all keys, the latest first, at most `MOST_LISTED`."""
        async with self._database.connection() as connection:
            return [_key(row) for row in await connection.fetch(_ALL, MOST_LISTED)]

    async def get(self, key_id: str) -> ApiKey | None:
        """Return one key; None = it does not exist."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_ONE, key_id)
        return None if row is None else _key(row)

    async def add(self, key: ApiKey) -> None:
        """Store a new key. Raises: Rejected `too_many_keys`: there are `MOST_LIVE` live keys already."""
        async with self._database.lasting() as connection:
            if await connection.fetchval(_COUNTED) >= MOST_LIVE:
                raise Rejected("too_many_keys", f"{MOST_LIVE} keys are live: revoke unused ones")
            await connection.execute(_ADD, *_row(key))

    async def replace(self, ending: ApiKey, new: ApiKey) -> None:
        """Store `new`, and let the old key expire no later than `ending`, in one transaction.

        Raises:
            Rejected: `key_ended`: the old key was revoked or replaced, or has expired, since it was read.
        """
        async with self._database.lasting() as connection:
            await connection.execute(
                _LOCKED, ending.key_id
            )  # the next statement then sees the change of a concurrent transaction
            if await connection.execute(_SHORTEN, ending.key_id, ending.expires_at) != "UPDATE 1":
                raise Rejected("key_ended", "the key is revoked, replaced or expired: make a new one")
            await connection.execute(_ADD, *_row(new))

    async def revoke(self, key_id: str, at: datetime) -> None:
        """Revoke a key. If it is revoked already, the first moment stays."""
        async with self._database.lasting() as connection:
            await connection.execute(_REVOKE, key_id, at)

    async def used(self, last_used_at: Mapping[str, datetime]) -> None:
        """Store when keys were used last; an earlier moment than the stored one changes nothing."""
        async with self._database.connection() as connection:
            await connection.execute(_USED, list(last_used_at), list(last_used_at.values()))


def _key(row: Any) -> ApiKey:
    columns = dict(row)
    prefixes = _set(columns.pop("customer_prefixes"))
    return ApiKey(
        **{**columns, "scopes": current_scopes(columns["scopes"]), "orgs": _set(columns["orgs"]), "prefixes": prefixes}
    )


def _set(found: list[str] | None) -> frozenset[str] | None:
    return None if found is None else frozenset(found)


def _row(key: ApiKey) -> tuple[Any, ...]:
    """Return the values of `_COLUMNS`, which are the fields of `ApiKey` in their order."""
    return tuple(sorted(value) if isinstance(value, frozenset) else value for value in astuple(key))
