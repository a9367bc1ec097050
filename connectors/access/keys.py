"""API keys: their form, their stored data, and the keys that a caller may make.

A token is `mb_<id>_<secret>`. The id is not secret: it finds the key, and people recognise a key by it. The secret is
256 random bits, of which only SHA-256 is stored. A slow hash protects passwords, because passwords can be guessed.
Random bits cannot be guessed, so a hash that is fast enough for every request is sufficient.
"""

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from connectors.access.scopes import EVERYTHING
from streams.core.mapping.customer_prefixes import prefixes_within

PREFIX: Final = "mb_"
_ID_BYTES, _SECRET_BYTES = 6, 32


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The stored data of a key. Times are timezone-aware.

    Fields:
        hash: SHA-256 of the whole token.
        orgs: the only orgs that the key may see or change; None = all.
        expires_at, revoked_at: the key is invalid from then on; None = never.
        last_used_at: exact to a few seconds.
        rotated_from: id of the key that this one replaced.
        prefixes: the key may map LiteLLM customers whose ids begin so; None: see `streams.core.mapping.customer_prefixes`.
    """

    key_id: str
    hash: bytes
    name: str
    scopes: frozenset[str]
    orgs: frozenset[str] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    rotated_from: str | None = None
    prefixes: frozenset[str] | None = None

    @property
    def prefix(self) -> str:
        """The first characters of the token, by which people recognise the key."""
        return f"{PREFIX}{self.key_id}"

    def state(self, now: datetime) -> str:
        """Return `live`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "live"

    def is_of(self, token: str) -> bool:
        """Return whether this is the key's token. The comparison takes the same time for every wrong token."""
        return hmac.compare_digest(self.hash, _hashed(token))

    def is_within(
        self, scopes: frozenset[str], orgs: frozenset[str] | None, prefixes: frozenset[str] | None = None
    ) -> bool:
        """Return whether the key may do no more than a caller with these scopes, orgs and id prefixes."""
        narrow_enough = prefixes_within(self.orgs, self.prefixes, orgs, prefixes)
        return narrow_enough and is_within(self.scopes, self.orgs, scopes, orgs)


def is_within(
    inner: Iterable[str], inner_orgs: frozenset[str] | None, scopes: frozenset[str], orgs: frozenset[str] | None
) -> bool:
    """Return whether the inner scopes and orgs allow nothing that the outer ones do not allow; orgs None = all."""
    wide_enough = EVERYTHING in scopes or scopes.issuperset(inner)
    return wide_enough and (orgs is None or (inner_orgs is not None and orgs.issuperset(inner_orgs)))


def key_id_of(token: str) -> str | None:
    """Return the key id in a token of Meterbridge; None = it is another text."""
    if not token.startswith(PREFIX):
        return None
    key_id, _, secret = token.removeprefix(PREFIX).partition("_")
    return key_id if key_id and secret else None


def mint(
    name: str,
    scopes: Iterable[str],
    orgs: Iterable[str] | None,
    by: str,
    now: datetime,
    expires_at: datetime | None = None,
    prefixes: Iterable[str] | None = None,
) -> tuple[ApiKey, str]:
    """Return a new key and its token; the token is stored nowhere."""
    key_id = secrets.token_hex(_ID_BYTES)
    token = f"{PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    limited_to = None if orgs is None else frozenset(orgs)
    begins = None if prefixes is None else frozenset(prefixes)
    key = ApiKey(key_id, _hashed(token), name, frozenset(scopes), limited_to, now, by, expires_at, prefixes=begins)
    return key, token


def successor(old: ApiKey, by: str, now: datetime, until: datetime | None = None) -> tuple[ApiKey, str]:
    """Make a key with the same rights as `old` and with the same lifetime from now on, but not after `until`; return it
    with its token.
    """
    ends = None if old.expires_at is None else now + (old.expires_at - old.created_at)
    if until is not None and (ends is None or ends > until):
        ends = until
    key, token = mint(old.name, old.scopes, old.orgs, by, now, ends, old.prefixes)
    return replace(key, rotated_from=old.key_id), token


def expiring(old: ApiKey, now: datetime, overlap: timedelta) -> ApiKey:
    """Return `old` after its replacement: it expires after `overlap`, or at its own end if that is earlier."""
    ends = now + overlap
    return replace(old, expires_at=ends if old.expires_at is None else min(old.expires_at, ends))


def _hashed(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
