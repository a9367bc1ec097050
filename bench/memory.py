"""Memory of a remembered identity, compared with a Python set of the same bytes."""

import sys
from hashlib import blake2b

from bench.report import Row
from streams.core.metering.dedupe_set import SeenIds
from streams.core.metering.identity import IDENTITY_BYTES

_CHUNK = 2000


def per_identity(count: int) -> list[Row]:
    """Bytes per identity, with `count` identities."""
    table, plain = SeenIds(), set[bytes]()
    for start in range(0, count, _CHUNK):
        fetch_batch = [
            blake2b(b"%d" % number, digest_size=IDENTITY_BYTES).digest() for number in range(start, start + _CHUNK)
        ]
        table.add(b"".join(fetch_batch), start // 50_000)
        plain.update(fetch_batch)
    theirs = (sys.getsizeof(plain) + len(plain) * sys.getsizeof(b"\0" * IDENTITY_BYTES)) / len(plain)
    return [Row("memory_per_id", "bytes", "bare", [table.nbytes / len(table)], [theirs])]
