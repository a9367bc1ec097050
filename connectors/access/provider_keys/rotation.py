"""Encrypts all stored provider keys again under the newest secret, so that the older ones can be removed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from connectors.access.provider_keys.cipher import KeyCipher
from connectors.access.provider_keys.store import PostgresProviderKeys

#: Keys of one transaction.
BATCH: Final = 200


@dataclass(slots=True)
class Rotated:
    """The result of a rotation.

    Fields:
        keys: active keys that were found.
        already: keys that were under the newest secret before.
        encrypted_again: keys that this run encrypted again.
        left: keys that still use an older secret, because a process with the older list stored them during the
            rotation.
    """

    keys: int = 0
    already: int = 0
    encrypted_again: int = 0
    left: int = 0


async def decryptable(store: PostgresProviderKeys, cipher: KeyCipher) -> int:
    """Decrypt every stored key, and change nothing. Returns their number.

    Raises:
        Unavailable: `provider_keys_secret_wrong` or `provider_key_unreadable`: the secrets do not decrypt all keys.
    """
    after, count = "", 0
    while batch := await store.following(after, BATCH):
        for key, sealed in batch:
            cipher.opened(key, sealed)
        after, count = batch[-1][0].key_id, count + len(batch)
    return count


async def rotate(
    store: PostgresProviderKeys, secrets: Sequence[str], on_batch: Callable[[int], None] = lambda _keys: None
) -> Rotated:
    """Encrypt all keys under the newest secret. A run that was interrupted is continued by the next one.

    It first decrypts all keys, so with a missing secret it changes nothing. At its end it decrypts all keys again, with the
    newest secret alone.

    Raises:
        Unavailable: see `decryptable`; or Postgres does not answer.
    """
    cipher, newest, done = KeyCipher(secrets), KeyCipher(secrets[:1]), Rotated()
    await decryptable(store, cipher)
    after = ""
    while batch := await store.following(after, BATCH):
        older = [(key, sealed) for key, sealed in batch if sealed.secret_id != newest.secret_ids[0]]
        changes = [(key.key_id, sealed, newest.sealed(key, cipher.opened(key, sealed))) for key, sealed in older]
        done.keys += len(batch)
        done.already += len(batch) - len(older)
        done.encrypted_again += await store.reseal(changes) if changes else 0
        after = batch[-1][0].key_id
        on_batch(len(batch))
    after = ""
    while batch := await store.following(after, BATCH):
        for key, sealed in batch:
            if sealed.secret_id == newest.secret_ids[0]:
                newest.opened(key, sealed)
            else:
                done.left += 1
        after = batch[-1][0].key_id
    return done
