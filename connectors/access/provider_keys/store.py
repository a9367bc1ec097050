"""The table `user_provider_keys`. It is not a projection of a topic, so a change is on disk before a method returns."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from connectors.access.provider_keys.cipher import SealedKey, wrong_secret
from connectors.access.provider_keys.keys import ProviderKey
from connectors.postgres.pool import Database
from schemas.errors import Rejected

_SHOWN = (
    "key_id, user_id, provider, key_name, masked_key, created_at, created_by, rotation_due, last_used_at, use_count, "
    "revoked_at"
)
_ALL = f"SELECT {_SHOWN} FROM user_provider_keys ORDER BY created_at DESC, key_id LIMIT $1"  # noqa: S608  # our own words
_OF_USER = f"SELECT {_SHOWN} FROM user_provider_keys WHERE user_id = $2 ORDER BY created_at DESC, key_id LIMIT $1"  # noqa: S608
_ONE = f"SELECT {_SHOWN} FROM user_provider_keys WHERE key_id = $1"  # noqa: S608
_LIVE = f"""
SELECT {_SHOWN}, encrypted_key, secret_id FROM user_provider_keys
WHERE user_id = $1 AND provider = $2 AND is_active ORDER BY created_at DESC, key_id LIMIT 1
"""  # noqa: S608
_ADD = """
INSERT INTO user_provider_keys (
    key_id, user_id, provider, key_name, masked_key, created_at, created_by, rotation_due, encrypted_key, secret_id
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING
"""
#: A revoked key's name is free again. The audit log has its history.
_FREE_NAME = """
DELETE FROM user_provider_keys WHERE user_id = $1 AND provider = $2 AND key_name = $3 AND NOT is_active
"""
_COUNT = "SELECT count(*) FROM user_provider_keys WHERE user_id = $1"
_STRANGE = "SELECT EXISTS (SELECT FROM user_provider_keys WHERE is_active AND secret_id <> ALL ($1::text[]))"
_REVOKE = """
UPDATE user_provider_keys SET is_active = false, revoked_at = $2, encrypted_key = NULL WHERE key_id = $1 AND is_active
"""
_USED = """
UPDATE user_provider_keys k
SET use_count = k.use_count + u.uses, last_used_at = GREATEST(k.last_used_at, u.at)
FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) AS u (key_id, uses, at) WHERE k.key_id = u.key_id
"""
_TOTALS = """
SELECT secret_id, count(*), count(*) FILTER (WHERE rotation_due <= $1), min(created_at)
FROM user_provider_keys WHERE is_active GROUP BY secret_id
"""
_NEXT = f"""
SELECT {_SHOWN}, encrypted_key, secret_id FROM user_provider_keys
WHERE is_active AND key_id > $1 ORDER BY key_id LIMIT $2
"""  # noqa: S608
_RESEAL = """
UPDATE user_provider_keys k SET encrypted_key = n.encrypted, secret_id = $4
FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS n (key_id, before, encrypted)
WHERE k.key_id = n.key_id AND k.encrypted_key = n.before
"""
#: The maximum number of listed keys, and of keys of a user.
MOST_LISTED, MOST_OF_USER = 1000, 100


class Use(NamedTuple):
    """Decryptions of one key: how many, and the latest."""

    uses: int
    at: datetime


class SecretTotals(NamedTuple):
    """The active keys under one secret: how many, how many of them are due to be replaced, and the oldest."""

    secret_id: str
    keys: int
    due: int
    oldest: datetime


class PostgresProviderKeys:
    """Stores provider keys. All methods raise Unavailable where Postgres does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: ProviderKey, sealed: SealedKey, secret_ids: Sequence[str]) -> None:
        """Store a new key.

        Args:
            secret_ids: of all secrets of this process.

        Raises:
            Rejected: `provider_key_exists`: the user has an active key of this name; `too_many_provider_keys`.
            Unavailable: `provider_keys_secret_wrong`: this process could not decrypt all keys that are stored.
        """
        async with self._database.lasting() as connection:
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('provider keys'), hashtext($1))", key.user_id
            )
            if await connection.fetchval(_STRANGE, list(secret_ids)):
                raise wrong_secret()
            await connection.execute(_FREE_NAME, key.user_id, key.provider, key.key_name)
            if await connection.fetchval(_COUNT, key.user_id) >= MOST_OF_USER:
                raise Rejected("too_many_provider_keys", f"the user has {MOST_OF_USER} keys: use another name again")
            values = key.key_id, key.user_id, key.provider, key.key_name, key.masked_key, key.created_at, key.created_by
            added = await connection.execute(_ADD, *values, key.rotation_due, sealed.encrypted, sealed.secret_id)
            if added != "INSERT 0 1":
                raise Rejected(
                    "provider_key_exists", "the user has a key of this name: revoke it, or choose another name"
                )

    async def all(self) -> list[ProviderKey]:
        """Return the keys of all users, the latest first, at most `MOST_LISTED`."""
        async with self._database.connection() as connection:
            return [ProviderKey(*row) for row in await connection.fetch(_ALL, MOST_LISTED)]

    async def of_user(self, user_id: str) -> list[ProviderKey]:
        """Return the user's keys, the latest first."""
        async with self._database.connection() as connection:
            return [ProviderKey(*row) for row in await connection.fetch(_OF_USER, MOST_LISTED, user_id)]

    async def get(self, key_id: str) -> ProviderKey | None:
        """Return one key; None = it does not exist."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_ONE, key_id)
        return None if row is None else ProviderKey(*row)

    async def live(self, user_id: str, provider: str) -> tuple[ProviderKey, SealedKey] | None:
        """Return the user's newest active key for the provider; None = there is none."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(_LIVE, user_id, provider)
        return None if row is None else _with_key(row)

    async def revoke(self, key_id: str, at: datetime) -> None:
        """Revoke and erase a key: the next call does not find it. If it is revoked already, the first moment stays."""
        async with self._database.lasting() as connection:
            await connection.execute(_REVOKE, key_id, at)

    async def used(self, uses: Mapping[str, Use]) -> None:
        """Add decryptions by key id."""
        async with self._database.connection() as connection:
            counts, moments = [use.uses for use in uses.values()], [use.at for use in uses.values()]
            await connection.execute(_USED, list(uses), counts, moments)

    async def totals(self, now: datetime) -> list[SecretTotals]:
        """Return the active keys by the secret that encrypted them."""
        async with self._database.connection() as connection:
            return [SecretTotals(*row) for row in await connection.fetch(_TOTALS, now)]

    async def following(self, key_id: str, limit: int) -> list[tuple[ProviderKey, SealedKey]]:
        """Return the next active keys after `key_id`, in the order of ids; `""` = from the first."""
        async with self._database.connection() as connection:
            return [_with_key(row) for row in await connection.fetch(_NEXT, key_id, limit)]

    async def reseal(self, changes: Sequence[tuple[str, SealedKey, SealedKey]]) -> int:
        """Replace encrypted keys, each by id, if they are still as they were read. Returns how many were replaced.

        Args:
            changes: key id, encrypted key before, and encrypted key after; all new ones are encrypted under one secret.
        """
        async with self._database.lasting() as connection:
            ids, before, after = zip(*changes, strict=True)
            done: str = await connection.execute(
                _RESEAL,
                list(ids),
                [sealed.encrypted for sealed in before],
                [sealed.encrypted for sealed in after],
                after[0].secret_id,
            )
            return int(done.rpartition(" ")[2])


def _with_key(row: Any) -> tuple[ProviderKey, SealedKey]:
    *shown, encrypted, secret = row
    return ProviderKey(*shown), SealedKey(encrypted, secret)
