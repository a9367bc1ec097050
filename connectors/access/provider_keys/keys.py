"""The data about a user's provider key that are stored with the encrypted key, and the data that are shown."""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

#: A provider's key: printable ASCII without spaces. A key is shown with its last characters only if it has 20 or more.
LEAST_CHARS, MOST_CHARS, LEAST_SHOWN = 8, 1024, 20
#: The part of a path that is a key id, and how a key id looks.
PART: Final = "provider_key_id"
KEY_ID: Final = re.compile(r"pk_[0-9a-f]{16}")
_BEGINNING = re.compile(r"[A-Za-z]{1,6}[-_]")
_TAIL = 4


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A provider key without the key. Moments are timezone-aware.

    Fields:
        masked_key: how people recognise it, such as `sk-...abcd`.
        rotation_due: from this moment on its owner is reminded to replace it at the provider.
        last_used_at, use_count: of decryptions for a call; exact to some seconds.
        revoked_at: None = it is active. A revoked key is erased.
    """

    key_id: str
    user_id: str
    provider: str
    key_name: str
    masked_key: str
    created_at: datetime
    created_by: str
    rotation_due: datetime
    last_used_at: datetime | None = None
    use_count: int = 0
    revoked_at: datetime | None = None

    @property
    def is_active(self) -> bool:
        """Whether calls may use it."""
        return self.revoked_at is None

    def is_due(self, now: datetime) -> bool:
        """Return whether the key is active and older than it should be."""
        return self.is_active and self.rotation_due <= now


def new_key(
    user_id: str, provider: str, key_name: str, api_key: str, by: str, now: datetime, rotate_after: timedelta
) -> ProviderKey:
    """Make the stored data about a new key. `api_key` itself is not among them."""
    key_id = f"pk_{secrets.token_hex(8)}"
    return ProviderKey(key_id, user_id, provider, key_name, masked(api_key), now, by, now + rotate_after)


def masked(api_key: str) -> str:
    """Return the beginning up to the first `-` or `_`, and the last four characters: `sk-...abcd`. A short key is not
    shown at all.
    """
    if len(api_key) < LEAST_SHOWN:
        return "..."
    beginning = _BEGINNING.match(api_key)
    return f"{beginning[0] if beginning else ''}...{api_key[-_TAIL:]}"


def shown_parts(parts: Mapping[str, str]) -> dict[str, str]:
    """Parts of a path for the audit log: where a key id should be, a caller may have put the key itself."""
    return {name: text if name != PART or KEY_ID.fullmatch(text) else "[no key id]" for name, text in parts.items()}
