"""What the ledger knows of a counted identity, in 16 bits: only a billed call shuts out a copy (ADR 0017).

An identity that was counted without a cost stays open for a copy with a cost. An identity that was decided with a cost
keeps the cost's fingerprint, so that a copy with another cost is noticed.
"""

from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from streams.core.metering.identity import IDENTITY_BYTES

#: Not counted inside the dedupe retention.
NEVER = -1
#: Counted by a release that stored no tag; it shuts out copies, as it did there.
UNTOLD = 0
#: Counted without a cost: a copy that is billed is billed once.
COSTLESS = 1
#: From here on: billed, or not billed because of a policy; the number is the fingerprint of its cost.
SETTLED = 2
FINGERPRINTS = 0x10000 - SETTLED
_TAG = np.dtype("<u2")
_TAGS_PER_KEY = IDENTITY_BYTES // _TAG.itemsize


def fingerprint(cost: Decimal) -> int:
    """The tag of an identity that was settled at `cost` dollars; one in 65 534 other costs has the same.

    Python's hash of a number is the same for equal amounts with any number of places, on every 64-bit platform
    (docs.python.org, Hashing of numeric types).
    """
    return hash(cost) % FINGERPRINTS + SETTLED


def differs(tag: int, cost: Decimal) -> bool:
    """Whether `cost` (dollars) is another cost than the settled one; a copy without a cost never differs."""
    return tag >= SETTLED and bool(cost) and tag != fingerprint(cost)


def pack_identities(tags: Mapping[bytes, int]) -> bytes:
    """Identities one after the other, the last two bytes of each replaced by its tag; a value of the changelog."""
    keys = np.frombuffer(b"".join(tags), dtype=_TAG).reshape(-1, _TAGS_PER_KEY).copy()
    keys[:, -1] = list(tags.values())
    return keys.tobytes()


def untold(packed: bytes) -> bytes:
    """Whole identities, as releases before version 3 wrote them, in the form of `pack_identities` with the tag `UNTOLD`."""
    keys = np.frombuffer(packed, dtype=_TAG).reshape(-1, _TAGS_PER_KEY).copy()
    keys[:, -1] = UNTOLD
    return keys.tobytes()
