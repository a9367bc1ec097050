"""The tag of a counted identity: 16 bits with facts about the call. Only a billed call excludes copies (ADR 0017).

An identity that was counted without a cost stays open for a copy with a cost. An identity that was decided with a cost
keeps a fingerprint of the cost, so that a copy with another cost is detected.
"""

from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from streams.core.metering.identity import IDENTITY_BYTES

#: Tag: not counted within the dedupe retention.
NEVER = -1
#: Tag: a policy excluded the call, which had no cost; or it was counted by a release that stored no tag. It excludes copies.
UNTOLD = 0
#: Tag: counted without a cost. A copy with a cost is billed once.
COSTLESS = 1
#: Tags from here on: billed, or not billed because of a policy. The number is the fingerprint of the cost.
SETTLED = 2
FINGERPRINTS = 0x10000 - SETTLED
_TAG = np.dtype("<u2")
_TAGS_PER_KEY = IDENTITY_BYTES // _TAG.itemsize


def fingerprint(cost: Decimal) -> int:
    """Return the tag of an identity that was settled at `cost` dollars. One in 65 534 other costs has the same tag.

    Python's hash of a number is the same for equal amounts with any number of places, on every 64-bit platform
    (docs.python.org, Hashing of numeric types).
    """
    return hash(cost) % FINGERPRINTS + SETTLED


def differs(tag: int, cost: Decimal) -> bool:
    """Return whether `cost` (dollars) differs from the settled cost. A copy without a cost never differs."""
    return tag >= SETTLED and bool(cost) and tag != fingerprint(cost)


def pack_identities(tags: Mapping[bytes, int]) -> bytes:
    """Join identities, with the last two bytes of each replaced by its tag. The result is a value of the changelog."""
    keys = np.frombuffer(b"".join(tags), dtype=_TAG).reshape(-1, _TAGS_PER_KEY).copy()
    keys[:, -1] = list(tags.values())
    return keys.tobytes()


def untold(packed: bytes) -> bytes:
    """Convert whole identities, as releases before version 3 wrote them, to the form of `pack_identities` with the tag `UNTOLD`."""
    keys = np.frombuffer(packed, dtype=_TAG).reshape(-1, _TAGS_PER_KEY).copy()
    keys[:, -1] = UNTOLD
    return keys.tobytes()
