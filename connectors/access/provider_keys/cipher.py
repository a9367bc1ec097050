"""Encrypts provider keys under `PROVIDER_KEYS_SECRET`: Fernet, with several secrets while one is replaced.

The encrypted text names the row that it belongs to. So if somebody with access to the tables copies the bytes into
another user's row, they are not decrypted. Source of the format: https://cryptography.io/en/latest/fernet/
"""

from base64 import urlsafe_b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import msgspec

from connectors.access.provider_keys.keys import ProviderKey
from schemas.decoding import UNDECODABLE
from schemas.errors import Unavailable

_DOMAIN: Final = b"meterbridge provider keys\0"
#: Hexadecimal digits of the id of a secret.
_ID_DIGITS: Final = 16
WRONG_SECRET: Final = "provider_keys_secret_wrong"  # noqa: S105  # a reason


@dataclass(frozen=True, slots=True)
class SealedKey:
    """An encrypted key, and the id of the secret that encrypted it."""

    encrypted: bytes = field(repr=False)
    secret_id: str


class KeyCipher:
    """Encrypts under the newest secret, and decrypts under each.

    Its library takes 10 MiB of memory. It is loaded here, because most installations store no provider key.

    Args:
        secrets: 32 bytes in URL-safe Base64 each, the newest first; at least one.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        from cryptography.fernet import Fernet, MultiFernet

        fernets = [Fernet(secret) for secret in secrets]
        self._newest = fernets[0]
        self._all = MultiFernet(fernets)
        self.secret_ids = [secret_id(secret) for secret in secrets]

    def sealed(self, key: ProviderKey, api_key: str) -> SealedKey:
        """Encrypt the key under the newest secret, for this row only."""
        return SealedKey(self._newest.encrypt(_bound(key, api_key)), self.secret_ids[0])

    def opened(self, key: ProviderKey, sealed: SealedKey) -> str:
        """Decrypt the provider's key.

        Raises:
            Unavailable: `provider_keys_secret_wrong`: no secret decrypts it. `provider_key_unreadable`: the bytes were
                changed, or belong to another row.
        """
        from cryptography.fernet import InvalidToken

        if sealed.secret_id not in self.secret_ids:
            raise wrong_secret()
        try:
            bound = msgspec.json.decode(self._all.decrypt(sealed.encrypted), type=list[str])
        except (InvalidToken, *UNDECODABLE):
            bound = []
        if bound[:-1] != _row(key):
            raise Unavailable("provider_key_unreadable", f"the stored key {key.key_id} was changed in the table")
        return bound[-1]


def secret_id(secret: str) -> str:
    """Return a name of a secret that does not reveal the secret."""
    return sha256(_DOMAIN + urlsafe_b64decode(secret)).hexdigest()[:_ID_DIGITS]


def wrong_secret() -> Unavailable:
    """Return the error for stored keys that are encrypted under a secret that is not configured."""
    return Unavailable(WRONG_SECRET, "stored provider keys are encrypted under a secret not in PROVIDER_KEYS_SECRET")


def _row(key: ProviderKey) -> list[str]:
    return [key.key_id, key.user_id, key.provider]


def _bound(key: ProviderKey, api_key: str) -> bytes:
    return msgspec.json.encode([*_row(key), api_key])
