"""The hash chain of the lines in `billing.audit` (ADR 0030).

The topic has one partition, so its lines have a total order. Every line names the newest line that its writer had read
(`prev`), how many lines there were up to it (`covered`), and the running hash over all of them (`chain`): `chain(n) =
SHA-256(chain(n-1), SHA-256 of the bytes of line n)`, in hexadecimal. Writers do not wait for each other: two lines that
are written at the same time both name the line before them, and the next line covers both. The first chained line names
no other line. A line's own `digest` is computed over its bytes without the digest.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from schemas.decoding import Unreadable, decoder
from schemas.records import AuditRecord

_decode = decoder(AuditRecord)
_DIGEST: Final = b',"digest":"'
_HEX: Final = 64
#: Number of hexadecimal digits of a line's hash in the reference from the next line.
_SHORT: Final = 16


class ChainHead(NamedTuple):
    """A position in the chain.

    Fields:
        name: of the newest line, see `AuditLine`; `""` = there is no chained line.
        covered: number of lines from the first chained one on.
        chain: the running hash over these lines; `""` = there are none.
    """

    name: str = ""
    covered: int = 0
    chain: str = ""


class AuditLine(NamedTuple):
    """A line as it is stored.

    Fields:
        record: None = the bytes are not a line of the audit log.
        hash: SHA-256 of the bytes.
        name: the audit_id and the beginning of the hash.
        is_whole: the bytes match the line's own digest.
    """

    offset: int
    record: AuditRecord | None
    hash: str
    name: str
    is_whole: bool
    value: bytes = b""

    @property
    def is_chained(self) -> bool:
        """Whether the line was written as a part of the chain; older releases wrote lines without a chain."""
        return self.record is not None and bool(self.record.digest)


def sealed(line: AuditRecord, chain_head: ChainHead) -> bytes:
    """Return the bytes of a line that follows the position `chain_head`."""
    unsigned = msgspec.structs.replace(
        line, prev=chain_head.name, covered=chain_head.covered, chain=chain_head.chain, digest=""
    )
    body = msgspec.json.encode(unsigned)
    return body[:-1] + _DIGEST + sha256(body).hexdigest().encode() + b'"}'


def line_of(offset: int, value: bytes) -> AuditLine:
    """Return the line with the bytes at an offset."""
    found = sha256(value).hexdigest()
    try:
        record = _decode(value)
    except Unreadable:
        return AuditLine(offset, None, found, f"?:{found[:_SHORT]}", is_whole=False, value=value)
    return AuditLine(offset, record, found, f"{record.audit_id}:{found[:_SHORT]}", _is_whole(value), value)


def after(chain_head: ChainHead, line: AuditLine) -> ChainHead:
    """Return the position behind `line`, which follows `chain_head`."""
    return ChainHead(line.name, chain_head.covered + 1, sha256((chain_head.chain + line.hash).encode()).hexdigest())


def chain_head_of(lines: Sequence[AuditLine], *, from_the_beginning: bool) -> ChainHead | None:
    """Return the position behind the log's last lines; None = these lines are too few to compute it.

    Args:
        from_the_beginning: these are all lines of the topic.
    """
    chained = [number for number, line in enumerate(lines) if line.is_chained]
    if not chained:
        return ChainHead() if from_the_beginning else None
    places = {line.name: number for number, line in enumerate(lines)}
    for number in reversed(chained):
        record = lines[number].record
        assert record is not None  # noqa: S101  # chained lines have a record
        if not record.covered and (from_the_beginning or chained[0] > 0):
            return _walked(ChainHead(), lines[chained[0] :])
        if record.covered and (place := places.get(record.prev, number)) < number:
            return _walked(ChainHead(record.prev, record.covered, record.chain), lines[place + 1 :])
    if not from_the_beginning:
        return None
    # All lines that these refer to have expired, so they cannot be checked: the chain continues from the oldest claim.
    oldest = lines[chained[0]].record
    assert oldest is not None  # noqa: S101  # chained lines have a record
    return _walked(ChainHead(oldest.prev, oldest.covered, oldest.chain), lines[chained[0] :])


def _walked(chain_head: ChainHead, lines: Sequence[AuditLine]) -> ChainHead:
    for line in lines:
        chain_head = after(chain_head, line)
    return chain_head


def _is_whole(value: bytes) -> bool:
    at = len(value) - len(_DIGEST) - _HEX - 2
    if at < 0 or value[at : at + len(_DIGEST)] != _DIGEST:
        return False
    return sha256(value[:at] + b"}").hexdigest().encode() == value[at + len(_DIGEST) : -2]
