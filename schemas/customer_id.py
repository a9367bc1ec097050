"""One spelling of a customer id for ingress, mapping API, replay and backfill.

The spelling is the Kafka key, so it decides the partition. Two spellings of one customer could be on two partitions.
Lone surrogates become U+FFFD, because a key must be UTF-8.

A secret must not become a name. Text that looks like an API key, and text in a key hash field that is no hash, is
replaced by the hash that LiteLLM would have sent. So a mapping that contains the plain-text key finds the same
customer.
"""

from hashlib import sha256
from re import compile as re_compile
from unicodedata import normalize

from schemas.bounded_name import MAX_BYTES, bounded_name

#: The customer of calls without a customer: held until an operator maps it, never dropped.
UNATTRIBUTED = "unattributed:"

#: LiteLLM's name for its master key, in place of a hash.
_MASTER_KEY = "litellm_proxy_master_key"
_HASH = re_compile(r"[0-9a-fA-F]{64}")
#: LiteLLM's keys, and those of most providers, begin with this.
_SECRET = re_compile(r"(?:[Bb]earer\s+)?sk-\S{4,}")
_SECRET_STARTS = ("sk-", "Bearer", "bearer")
#: Number of cached ids. Most calls have the same id as a recent call.
_known: dict[str, str] = {}
_KNOWN = 4096
_SCHEME = re_compile(r"(?i:bearer)\s+")


def is_secret(text: str) -> bool:
    """Return whether the text looks like a plain-text API key: `sk-...`, also after `Bearer`."""
    return _SECRET.fullmatch(text.strip()) is not None


def key_hash(text: str) -> str:
    """Return the value to store for a field with a key or its hash: 64 hex digits unchanged, any other text as its
    SHA-256.

    This equals LiteLLM's hash of a key, even if the sender left `Bearer` before the key. Hashing twice changes nothing.
    """
    plain = text.strip()
    if not plain or plain == _MASTER_KEY or _HASH.fullmatch(plain) is not None:
        return plain
    plain = _SCHEME.sub("", plain, count=1)
    return sha256(plain.encode("utf-8", "replace")).hexdigest()


def normalise_customer_id(text: str | None) -> str | None:
    """Trim, remove NUL, apply NFC. `""` becomes None; over 255 bytes of UTF-8 becomes `sha256:<hex>`; a secret becomes
    its hash.

    Normalising twice changes nothing.
    """
    if text is None:
        return None
    if (known := _known.get(text)) is not None:
        return known
    normal = _normalised(text)
    if normal is not None and len(text) <= MAX_BYTES:
        if len(_known) >= _KNOWN:
            _known.clear()
        _known[text] = normal
    return normal


def _normalised(text: str) -> str | None:
    text = text.replace("\0", "")  # first, because a letter and its accent on both sides of it become one
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = normalize("NFC", text)
    text = text.strip()
    if not text:
        return None
    if text.startswith(_SECRET_STARTS) and is_secret(text):
        return key_hash(text)
    return bounded_name(text)
