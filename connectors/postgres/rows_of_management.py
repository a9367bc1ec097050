"""Makes rows for mappings, orgs, audit lines and deliveries."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from connectors.postgres.rows import NUL, KafkaRecord, Rows, key_of, read_rows, value_of, without_nul
from schemas.bounded_name import bounded_name
from schemas.customers import CustomerRecord, MappingVersion, OrgRecord, Period
from schemas.decoding import UNDECODABLE, decoder
from schemas.moments import to_iso
from schemas.records import AuditRecord, DeliveryAttempt

_encode = msgspec.json.Encoder().encode
_decode_customer = decoder(CustomerRecord)
_decode_org = decoder(OrgRecord)
_decode_audit = decoder(AuditRecord)
_decode_attempt = decoder(DeliveryAttempt)
_fields = msgspec.structs.asdict


class Removed(NamedTuple):
    """The record of `key` was removed at `offset`."""

    key: str
    offset: int


def customer_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `billing.customers` for customers.sql, or `Removed`; the latest of each customer."""
    return _latest(read_rows(records, _customer_row))


def org_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `billing.orgs` for organisations.sql, or `Removed`; the latest of each org."""
    return _latest(read_rows(records, _org_row))


def audit_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `billing.audit` for audit.sql."""
    return _latest(read_rows(records, _audit_row))


def delivery_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `billing.deliveries` for deliveries.sql."""
    return read_rows(records, _delivery_row)


def _latest(rows: Rows) -> Rows:
    return Rows(list({row[0]: row for row in rows.rows}.values()), rows.aside)


def _customer_row(record: KafkaRecord) -> tuple[Any, ...]:
    if record.value is None:
        return Removed(key_of(record), record.offset)
    customer = _decode_customer(value_of(record))
    versions = _text([_version(version) for version in customer.versions])
    return key_of(record), record.offset, versions, customer.created_at, customer.updated_at


def _version(version: MappingVersion) -> dict[str, Any]:
    moments = {"effective_from": to_iso(version.effective_from), "updated_at": to_iso(version.updated_at)}
    return _fields(version) | moments


def _org_row(record: KafkaRecord) -> tuple[Any, ...]:
    if record.value is None:
        return Removed(key_of(record), record.offset)
    org = _decode_org(value_of(record))
    periods = _text([_period(period) for period in org.periods])
    words = org.name, org.email, org.plan, org.currency, org.status, org.subscription_id
    return key_of(record), record.offset, *words, _text(org.limits), periods, org.updated_at, org.organization


def _period(period: Period) -> dict[str, Any]:
    ended = None if period.terminated_at is None else to_iso(period.terminated_at)
    return _fields(period) | {"started_at": to_iso(period.started_at), "terminated_at": ended}


def _audit_row(record: KafkaRecord) -> tuple[Any, ...]:
    line = _decode_audit(value_of(record))
    words = line.actor, bounded_name(line.action), _text(line.target), line.reason
    change = _json(line.before), _json(line.after), line.request_id, line.address
    return bounded_name(line.audit_id), line.at, *words, line.count, str(line.cost_usd), *change


def _delivery_row(record: KafkaRecord) -> tuple[Any, ...]:
    attempt = _decode_attempt(value_of(record))
    answer = attempt.status, attempt.error, attempt.duration_ms
    batch = attempt.attempt, attempt.events, attempt.first, attempt.last, attempt.source
    named = attempt.direction, attempt.event_type
    return record.offset, attempt.at, *named, *answer, *batch, bounded_name(attempt.unique_key)


def _json(text: str) -> str | None:
    """Return JSON text; a text that is not JSON becomes a JSON string; `""` and null become None."""
    try:
        if not text or msgspec.json.decode(text) is None:
            return None
        return without_nul(text.encode()).decode() if NUL.decode() in text else text
    except UNDECODABLE:
        return _text(text)


def _text(value: Any) -> str:
    return _encode(value).decode()
