"""Makes the records that a step of a ledger writes in addition to its changelog: enriched calls, rejections, events,
receipts.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from schemas.decoding import decoder
from schemas.records import DeliveryAttempt, LagoEvent, Manifest, Receipt, WriteOff
from schemas.topics import TopicNames
from schemas.trace_context import TRACEPARENT
from streams.runtime.transactions import Run, Write

if TYPE_CHECKING:
    # Other roles than the meter import this module for the names of headers, and must not import numpy, which the state
    # needs.
    from streams.core.metering.step_changes import Changes

_encode = msgspec.json.Encoder().encode
_decode_event = decoder(LagoEvent)
_decode_manifest = decoder(Manifest)
_decode_order = decoder(WriteOff)

#: Headers of an event's record.
MANIFEST, SEAL_SEQ, RAW_PARTITION = "manifest", "seal_seq", "raw_partition"

#: The header, and its value, of a record in the raw topic that is an order of an operator and no call.
CONTROL, WRITE_OFF = "control", b"write_off"


def order_in(headers: Iterable[tuple[str, Any]] | None, value: bytes | None) -> WriteOff | None:
    """Return the operator's order in a record of the raw topic; None = it is a call, whatever headers it has.

    All readers ask this function: if one took a record for an order and another for a call, the call could be lost or
    billed twice. An unreadable order is a call, too, which the fold refuses as malformed.
    """
    if not headers or value is None or dict(headers).get(CONTROL) != WRITE_OFF:
        return None
    try:
        return _decode_order(value)
    except msgspec.DecodeError:
        return None


def runs_of(changes: "Changes", topics: TopicNames, partition: int) -> tuple[Run, Run]:
    """Return a step's enriched calls and rejections. They have the partition number of the calls."""
    return Run(topics.enriched, partition, changes.enriched), Run(topics.rejected, partition, changes.rejected)


def writes_of(changes: "Changes", topics: TopicNames, partition: int) -> Iterator[Write]:
    """Return a step's events and receipts. Their keys determine their partitions."""
    for sealed in changes.sealed:
        event = sealed.event
        headers = [
            (MANIFEST, _encode(sealed.manifest)),
            (SEAL_SEQ, b"%d" % sealed.seal_seq),
            (RAW_PARTITION, b"%d" % partition),
        ]
        if sealed.traceparent:
            headers.append((TRACEPARENT, sealed.traceparent))
        yield Write(topics.events, -1, event.external_subscription_id.encode(), _encode(event), headers)
        yield receipt_write(topics, sealed.receipt)
    for receipt in changes.receipts:
        yield receipt_write(topics, receipt)


def receipt_write(topics: TopicNames, receipt: Receipt) -> Write:
    """Return the write of a receipt, with its transaction id as key."""
    return Write(topics.receipts, -1, receipt.transaction_id.encode(), _encode(receipt))


def attempt_write(topics: TopicNames, attempt: DeliveryAttempt) -> Write:
    """Return the write of a record about a post, with the topic and partition of its events as key."""
    return Write(topics.deliveries, -1, attempt.source.encode(), _encode(attempt))


def read_event(value: bytes) -> LagoEvent:
    """Read the event in a record of the events, retry or dead-letter topic."""
    return _decode_event(value)


def read_manifest(headers: dict[str, bytes]) -> Manifest | None:
    """Read the manifest in a record's headers; None if the header is absent."""
    found = headers.get(MANIFEST)
    return None if found is None else _decode_manifest(found)
