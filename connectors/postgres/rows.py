"""Makes rows for Postgres from the records of the topics: what is common to all of them. The functions of the modules
`rows_of_*` are pure, one per topic; a row is a tuple in the order of its SQL file.

Postgres accepts no NUL in text or JSON. In the records NUL can only be an escape, which this module removes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from schemas.bounded_name import bounded_name
from schemas.decoding import DAMAGE
from schemas.moments import MAX_US

NUL = b"\\u0000"
_INT8 = 1 << 63
_MAX_MS = MAX_US // 1000


class KafkaRecord(Protocol):
    """The part of a Kafka record that this module reads."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class SkippedRecord(NamedTuple):
    """A record without a row; `problem` is the kind of damage, never a part of the record."""

    offset: int
    recorded_ms: int
    problem: str


class Rows(NamedTuple):
    """The rows of one batch.

    Fields:
        rows: all with different keys; see `usage_rows`.
        aside: the records that could not be read.
    """

    rows: list[tuple[Any, ...]]
    aside: list[SkippedRecord]


def read_rows(records: Iterable[KafkaRecord], row_of: Callable[[KafkaRecord], tuple[Any, ...]]) -> Rows:
    """Return a row per record; records that cannot be read are listed in `aside`."""
    rows: list[tuple[Any, ...]] = []
    aside: list[SkippedRecord] = []
    for record in records:
        try:
            _check_time(record)
            row = row_of(record)
            for cell in row:
                if type(cell) is int and not -_INT8 <= cell < _INT8:
                    raise OverflowError
            rows.append(row)
        except DAMAGE as damage:
            aside.append(SkippedRecord(record.offset, record.timestamp, type(damage).__name__))
    return Rows(rows, aside)


def _check_time(record: KafkaRecord) -> None:
    """Refuse a time outside the range of Postgres; Kafka keeps any number that a producer gave."""
    if not 0 <= record.timestamp < _MAX_MS:
        raise OverflowError


def value_of(record: KafkaRecord) -> bytes:
    """Return the record's JSON without NUL."""
    value = record.value or b""
    return without_nul(value) if NUL in value else value


def key_of(record: KafkaRecord) -> str:
    """Return the record's key as text without NUL, bounded as a name: it is the key of a table."""
    return bounded_name((record.key or b"").decode(errors="replace").replace("\0", ""))


def without_nul(value: bytes) -> bytes:
    """Return the same JSON without NUL. Raises: msgspec.DecodeError."""
    return msgspec.json.encode(_clean(msgspec.json.decode(value)))


def _clean(member: Any) -> Any:
    if isinstance(member, str):
        return member.replace("\0", "")
    if isinstance(member, dict):
        return {_clean(name): _clean(value) for name, value in member.items()}
    return [_clean(one) for one in member] if isinstance(member, list) else member
