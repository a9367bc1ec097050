"""What is known of an identity that was counted, in 16 bits: only what was billed shuts out a copy (ADR 0017).

An identity that was counted without a cost leaves the way open for its copy with a cost. One that was decided with a
cost keeps that cost's fingerprint, so that a copy with another one can be told.
"""

from collections.abc import Mapping
from decimal import Decimal

import numpy as np

from streams.core.metering.identity import IDENTITY_BYTES

#: Not counted inside the horizon.
NEVER = -1
#: Counted by a release that did not tell more; it shuts out copies, as it did there.
UNTOLD = 0
#: Counted, and had no cost: a copy that is billed is billed once.
COSTLESS = 1
#: From here on: billed, or not billed by a policy; the fingerprint of its cost.
SETTLED = 2
FINGERPRINTS = 0x10000 - SETTLED
_TAG = np.dtype("<u2")
_TAGS_PER_KEY = IDENTITY_BYTES // _TAG.itemsize


def fingerprint(cost: Decimal) -> int:
    """The tag of an identity that was settled at `cost` dollars; one in 65 534 other costs has the same.

    Python's hash of a number: the same for equal amounts of any number of places, on every 64-bit platform
    (docs.python.org, Hashing of numeric types).
    """
    return hash(cost) % FINGERPRINTS + SETTLED


def open_to(tag: int) -> bool:
    """Whether a copy of what is known by this tag may still be billed."""
    return tag in (NEVER, COSTLESS)


def differs(tag: int, cost: Decimal) -> bool:
    """Whether a copy that costs `cost` dollars tells another cost than the one settled; a copy without a cost tells none."""
    return tag >= SETTLED and bool(cost) and tag != fingerprint(cost)


def pack(tags: Mapping[bytes, int]) -> bytes:
    """Identities one after the other, the last two bytes of each replaced by its tag: a changelog's value."""
    keys = np.frombuffer(b"".join(tags), dtype=_TAG).reshape(-1, _TAGS_PER_KEY).copy()
    keys[:, -1] = list(tags.values())
    return keys.tobytes()


def untold(packed: bytes) -> bytes:
    """What earlier releases wrote, whole identities, as `pack` would have with the tag `UNTOLD`."""
    keys = np.frombuffer(packed, dtype=_TAG).reshape(-1, _TAGS_PER_KEY).copy()
    keys[:, -1] = UNTOLD
    return keys.tobytes()
