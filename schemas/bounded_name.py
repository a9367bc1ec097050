"""Names that senders choose, short enough to be keys.

PostgreSQL refuses an index entry of more than about 2,700 bytes, and a refused entry refuses its row. So a name is bounded before
it becomes a key of a table or a topic. The function `bounded_name` of the database follows the same rule
(connectors/postgres/migrations/0015_analytics.sql).
"""

from hashlib import sha256
from typing import Final

#: The longest name that is kept unchanged, bytes of UTF-8.
MAX_BYTES: Final = 255
#: A text with at most this number of characters is never longer than `MAX_BYTES`.
_SURELY_SHORT: Final = MAX_BYTES // 4


def bounded_name(text: str) -> str:
    """Return the name itself; above `MAX_BYTES` bytes of UTF-8 it is `sha256:<hex>`, so different names stay different.

    Bounding twice changes nothing. The text has no lone surrogates.
    """
    if len(text) <= _SURELY_SHORT:
        return text
    encoded = text.encode()
    return text if len(encoded) <= MAX_BYTES else "sha256:" + sha256(encoded).hexdigest()
