"""Every reader of stored records, with damaged input: the first byte selects the reader of the rest."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from connectors.billing import event_state_reader, rejected_usage
from connectors.operations.late_calls import _Checked
from connectors.operations.rebuild_evidence import _Counted
from connectors.postgres import rows_of_calls, rows_of_events, rows_of_management
from connectors.telemetry.traces.delivery import _Id, _Ids
from connectors.telemetry.traces.meter import _Place
from schemas.context import CallContext
from schemas.customers import CustomerRecord, OrgRecord
from schemas.decoding import Unreadable, decoder
from schemas.errors import LedgerBroken
from schemas.ledger import Job, Position, Window
from schemas.rates import RateCard
from schemas.records import (
    AuditRecord,
    DeliveryAttempt,
    EnrichedUsage,
    LagoEvent,
    Manifest,
    Receipt,
    Rejection,
    WriteOff,
)
from schemas.wire import Call, RawRecord
from streams.agents import meter, received_event
from streams.core.metering.ledger_state import LedgerState
from streams.runtime.compacted_table import CompactedTable
from streams.state.changelog import restore
from tests.support.snapshots import snapshot_from

#: Every type that is read from a topic (tests/fuzz/test_corpus.py checks that none is missing), and how it is stored.
JSON: Final = (
    *(
        AuditRecord,
        Call,
        CustomerRecord,
        DeliveryAttempt,
        EnrichedUsage,
        LagoEvent,
        Manifest,
        OrgRecord,
        RateCard,
        RawRecord,
    ),
    *(Receipt, Rejection, WriteOff, _Checked, CallContext),
    *(_Counted, _Place, _Id, _Ids),
)
PACKED: Final = (Job, Position, Window)

Reader = Callable[[bytes], None]
#: Microseconds since 1970 UTC.
NOW_US: Final = 1_795_215_900_000_000


@dataclass
class Stored:
    """The parts of a Kafka record that a reader needs."""

    value: bytes | None
    key: bytes | None = b"acme"
    headers: list[tuple[str, Any]] = field(default_factory=list)
    offset: int = 0
    timestamp: int = NOW_US // 1000
    partition: int = 0


def _decoded(of: type[Any], *, packed: bool) -> Reader:
    read = decoder(of, packed=packed)

    def reader(value: bytes) -> None:
        try:
            found = read(value)
        except Unreadable as damage:
            found, result = None, str(damage)
        assert isinstance(found, of) or result.isidentifier(), "the error's kind, and nothing of the record"

    return reader


def _followed(of: type[Any]) -> Reader:
    sound = b'{"litellm_customer_id":"a","versions":[{"effective_from":0,"org_id":"o","tenant_id":"t"}]}'

    def reader(value: bytes) -> None:
        follower = CompactedTable({}, "topic", of, lambda: 0.0, "table")
        follower.take(0, [Stored(value), Stored(sound, b"next")])  # type: ignore[list-item]

    return reader


def _rows(rows_of: Callable[[Any], Any]) -> Reader:
    def reader(value: bytes) -> None:
        result = rows_of([Stored(value, headers=[("manifest", value), ("seal_seq", value[:8]), ("lane", value[:2])])])
        assert len(result.rows) + len(result.aside) >= 1 or result.rows == []

    return reader


def _headers(read: Callable[[Any], object]) -> Reader:
    names = ("control", "manifest", "attempts", "seal_seq", "lane", "resent")

    def reader(value: bytes) -> None:
        read(Stored(value, headers=[(name, value) for name in names]))
        read(Stored(value, headers=[("control", b"write_off")]))

    return reader


def _rejected(value: bytes) -> None:
    rejected_usage.RejectedFollower({}, "topic", lambda: 0.0).take(0, [Stored(value)])  # type: ignore[list-item]


def _changelog(value: bytes) -> None:
    """A key with the length in its own first byte, then its value, repeated. An unreadable ledger is reported as such."""
    latest: dict[bytes, bytes | None] = {}
    at = 0
    while at < len(value):
        key_end = at + 1 + value[at] % 20
        value_end = key_end + (value[key_end] if key_end < len(value) else 0)
        latest[value[at + 1 : key_end]] = value[key_end + 1 : value_end] or None
        at = max(value_end, key_end + 1)
    snapshot = snapshot_from(0, latest)
    with suppress(LedgerBroken, Unreadable):
        restore(LedgerState(Position()), snapshot, NOW_US)


READERS: Final[tuple[Reader, ...]] = (
    *(_decoded(of, packed=False) for of in JSON),
    *(_decoded(of, packed=True) for of in PACKED),
    *(_followed(of) for of in (CustomerRecord, OrgRecord, RateCard)),
    *(_rows(rows_of) for rows_of in (rows_of_calls.usage_rows, rows_of_calls.rejected_rows)),
    *(_rows(rows_of) for rows_of in (rows_of_events.event_rows, rows_of_events.receipt_rows)),
    *(_rows(rows_of) for rows_of in (rows_of_management.customer_rows, rows_of_management.org_rows)),
    *(_rows(rows_of) for rows_of in (rows_of_management.audit_rows, rows_of_management.delivery_rows)),
    *(
        _headers(read)
        for read in (event_state_reader._read, received_event.event_in, received_event.manifest_in, meter._order)
    ),
    _rejected,
    _changelog,
)


def stored(data: bytes) -> None:
    """The first byte selects a reader of `READERS`; the rest is the record."""
    if data:
        READERS[data[0] % len(READERS)](data[1:])
