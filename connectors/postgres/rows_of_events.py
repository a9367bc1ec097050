"""Makes rows for Lago events, and for their states by the receipts."""

from collections.abc import Iterable
from re import compile as re_compile
from typing import Any

from connectors.postgres.rows import KafkaRecord, Rows, read_rows, value_of
from schemas.bounded_name import bounded_name
from schemas.decoding import decoder
from schemas.reasons import WRITTEN_OFF
from schemas.records import LagoEvent, Manifest, Receipt
from streams.core.delivery.receipt_states import (
    COMPLETED,
    FAILED,
    PENDING,
    PROCESSING,
    STATUSES,
    takes_back,
)
from streams.core.metering.lago_event import is_rated
from streams.state.step_writes import MANIFEST, SEAL_SEQ

_decode_event = decoder(LagoEvent)
_decode_manifest = decoder(Manifest)
_decode_receipt = decoder(Receipt)
_KNOWN = (*STATUSES, WRITTEN_OFF)
#: A timestamp in an event; any other text is ignored.
_MOMENT = re_compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")


def event_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `billing.lago.events`: one per event, and one per held window that was released into it.

    A row has the columns of events.sql, and whether a rate card has priced the event.
    """
    rows: dict[str, tuple[Any, ...]] = {}
    result = read_rows(records, _event_row)
    for row, windows in result.rows:
        rows.setdefault(row[0], row)
        for part in windows:
            rows.setdefault(part, (part, row[0], *[None] * (len(row) - 2)))
    return Rows(list(rows.values()), result.aside)


def _event_row(record: KafkaRecord) -> tuple[tuple[Any, ...], list[str]]:
    text = value_of(record)
    event, headers = _decode_event(text), dict(record.headers)
    manifest = _decode_manifest(headers[MANIFEST]) if MANIFEST in headers else None
    part = event.transaction_id
    row = (
        part,
        None,
        text.decode(),
        event.external_subscription_id,
        None if (org_id := event.properties.get("org_id")) is None else bounded_name(org_id),
        event.properties.get("user_id"),
        event.precise_total_amount_cents or None,
        *((None,) * 5 if manifest is None else _manifest_columns(manifest)),
        int(headers[SEAL_SEQ]) if SEAL_SEQ in headers else None,
        record.timestamp,
        is_rated(event),
    )
    return row, [] if manifest is None else _released(part, manifest)


def _manifest_columns(manifest: Manifest) -> tuple[Any, ...]:
    windows = "{" + ",".join(map(str, manifest.windows)) + "}"
    return manifest.partition, manifest.first, manifest.last, manifest.count, windows


def _released(part: str, manifest: Manifest) -> list[str]:
    """Return the ids of the held parts that were merged into `part`; they differ from its id only in the first offset."""
    prefix = part.removesuffix(str(manifest.first))
    return [f"{prefix}{first}" for first in manifest.windows] if prefix != part else []


def receipt_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `billing.receipts` for receipts.sql: one per event, with its state after all of `records`."""
    states: dict[str, tuple[Any, ...]] = {}
    result = read_rows(records, _receipt)
    for [receipt] in result.rows:
        before = states.get(receipt.transaction_id)
        if receipt.status in _KNOWN and (before is None or _follows(before[1], receipt)):
            states[receipt.transaction_id] = _state(receipt, None if before is None else before[5])
    return Rows(list(states.values()), result.aside)


def _receipt(record: KafkaRecord) -> tuple[Receipt]:
    return (_decode_receipt(value_of(record)),)


def _follows(before: str, receipt: Receipt) -> bool:
    """Return whether a receipt follows a state, as in streams/core/delivery/event_states.py.

    `completed` is final except for events that Lago later says it will not bill, `pending` is only the first state, and
    written-off usage stays written off.
    """
    if before == COMPLETED:
        return takes_back(receipt)
    return before != WRITTEN_OFF and receipt.status != PENDING


def _state(receipt: Receipt, retried_us: int | None) -> tuple[Any, ...]:
    settled = receipt.at if receipt.status in (COMPLETED, FAILED, WRITTEN_OFF) else None
    retried = receipt.at if receipt.status == PROCESSING else retried_us
    state = receipt.transaction_id, receipt.status, receipt.attempts, receipt.reason, settled, retried
    posted_at = receipt.timestamp if _MOMENT.fullmatch(receipt.timestamp) else ""
    posted_to = receipt.external_subscription_id if receipt.status == COMPLETED else ""
    return *state, posted_at, posted_to, receipt.maybe_sent if receipt.status == FAILED else None
