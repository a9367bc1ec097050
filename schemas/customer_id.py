"""One spelling of a customer id for ingress, mapping API, replay and backfill alike.

The spelling is the Kafka key, and so decides the partition: two spellings of one customer would
never meet. Lone surrogates become U+FFFD, because a key must be UTF-8.
"""

from hashlib import sha256
from unicodedata import normalize

MAX_BYTES = 255
#: The customer of calls that name nobody: held until an operator maps it, never dropped.
UNATTRIBUTED = "unattributed:"


def normalise_customer_id(text: str | None) -> str | None:
    """Trim, drop NUL, NFC; `""` is absent (None); over 255 bytes of UTF-8 become `sha256:<hex>`.

    Idempotent: normalising twice is normalising once.
    """
    if text is None:
        return None
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = normalize("NFC", text)
    text = text.replace("\0", "").strip()
    if not text:
        return None
    encoded = text.encode()
    if len(encoded) > MAX_BYTES:
        return "sha256:" + sha256(encoded).hexdigest()
    return text
