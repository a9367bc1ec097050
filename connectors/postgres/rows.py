"""Makes rows for Postgres from the records of the topics. The functions are pure, one per topic; a row is a tuple in
the order of its SQL file.

Postgres accepts no NUL in text or JSON. In the records NUL can only be an escape, which this module removes.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, DecimalException
from operator import attrgetter
from re import compile as re_compile
from typing import Any, NamedTuple, Protocol

import msgspec

from connectors.postgres.call_details import details_of
from connectors.postgres.rejected_ids import ids_of
from schemas.bounded_name import bounded_name
from schemas.decoding import DAMAGE, UNDECODABLE, decoder
from schemas.moments import MAX_US
from schemas.money import ZERO
from schemas.reasons import WRITTEN_OFF
from schemas.records import EnrichedUsage, LagoEvent, Manifest, Receipt, Rejection
from schemas.usage import TOKENS
from schemas.wire import Call, RawRecord
from streams.core.delivery.dead_letter_headers import AUDIT_ID, HOW, RESOLVES
from streams.core.delivery.receipt_states import (
    COMPLETED,
    FAILED,
    PENDING,
    PROCESSING,
    STATUSES,
    takes_back,
)
from streams.core.metering.call_kinds import JOBS
from streams.core.metering.cost_fields import claims_of, foreign_currency
from streams.core.metering.decisions import BILLED, CARRIED, METERED
from streams.core.metering.lago_event import is_rated
from streams.core.metering.spend_log_ids import alias_of, names_a_job
from streams.state.step_writes import MANIFEST, SEAL_SEQ

NUL = b"\\u0000"
_decode_usage = decoder(EnrichedUsage)
_decode_event = decoder(LagoEvent)
_decode_manifest = decoder(Manifest)
_decode_receipt = decoder(Receipt)
_decode_rejection = decoder(Rejection)
_decode_raw = decoder(RawRecord)
_decode_call = decoder(Call)
#: The columns between the org and the cost, and the columns after the cost.
_what_it_was = attrgetter(
    *("external_subscription_id", "model", "provider", "call_type"),
    *TOKENS,
)
_whose_it_was = attrgetter(
    *("call_id", "request_id", "user_id", "team_id", "organization_id", "key_hash", "key_alias"),
    *("part", "held", "note"),
)
#: The columns of the price, after the text of `billed_usd`.
_what_it_is_priced_by = attrgetter("rate", "power_level", "cache_write_tokens", "images")
#: Indexes of columns in a usage row.
_DECISION, _CUSTOMER, _CALL_TYPE, _CALL_ID, _REQUEST_ID, _PART, _OFFSET, _LEDGER = 6, 8, 14, 21, 22, 28, -2, -1
_MONTH, _ORG, _SUBSCRIPTION, _COST, _HELD, _BILLED, _RATE, _PRICE = 1, 10, 11, 20, 29, 31, 32, 37
_KNOWN = (*STATUSES, WRITTEN_OFF)
_INT8 = 1 << 63
_MAX_MS = MAX_US // 1000
#: A rejected call may name any cost; only a plausible one is stored, in dollars.
_COST_LIMIT = Decimal(10**12)
#: A timestamp in an event; any other text is ignored.
_MOMENT = re_compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")


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
        rows: all with different keys.
        aside: the records that could not be read.
    """

    rows: list[tuple[Any, ...]]
    aside: list[SkippedRecord]


class Resolved(NamedTuple):
    """The resolution of the rejection at `offset` of the same partition."""

    offset: int
    resolution: str
    audit_id: str
    resolved_ms: int


class CountedCall(NamedTuple):
    """What a ledger has decided about a call, from a usage row or from its row in the usage log. Everything else in a row is
    the same whenever the same record of the raw topic is counted.

    Fields:
        offset: the call's place in its partition of the raw topic.
        cost_usd, billed_usd, price_usd: dollars; None = no rate card applies, or the factor is 1.
        ledger: as the names of its parts begin; `""` = not known, as of a part that is named by the identity of a call.
    """

    decision: str
    part: str
    offset: int
    held: str
    org_id: str
    external_subscription_id: str
    cost_usd: Decimal
    billed_usd: Decimal | None
    rate: str
    price_usd: Decimal | None
    ledger: str


def usage_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `litellm.usage.enriched` for usage.sql. If a call was counted first and its cost billed later, the result
    has only the row with the cost; if a rebuilt ledger has counted it again, the later row.
    """
    result = read_rows(records, _usage_row)
    rows: dict[tuple[bytes, str], tuple[Any, ...]] = {}
    for row in result.rows:
        before = rows.setdefault((row[0], row[1]), row)
        if before is not row and (
            _weight(row[_DECISION]) > _weight(before[_DECISION]) or is_recounted(_counted(before), _counted(row))
        ):
            rows[row[0], row[1]] = row
    return Rows(list(rows.values()), result.aside)


def _weight(decision: str) -> int:
    """A later row of a call replaces one of less weight."""
    return 2 if decision in BILLED else int(decision == CARRIED)


def is_recounted(before: CountedCall, after: CountedCall) -> bool:
    """Return whether a ledger has counted the same record of the raw topic again, with another result. Only a rebuilt ledger
    does: it counts the calls of open and held windows, by the mappings and settings of today. It may not bill them.

    Args:
        before, after: of the same call and partition. Two topics may have the call at the same offset. So the parts must have one
            name, or be of one ledger.
    """
    if not before.part or before.offset != after.offset or before._replace(ledger=after.ledger) == after:
        return False
    return before.part == after.part or (after.ledger != "" and before.ledger in ("", after.ledger))


def ledger_of(part: str) -> str:
    """Return how the names of a ledger's parts begin; `""` = the name is the identity of a call, or there is no part."""
    ledger, dash, first_offset = part.rpartition("-")
    return ledger + dash if first_offset.isascii() and first_offset.isdigit() else ""


def _counted(row: tuple[Any, ...]) -> CountedCall:
    """Return what was decided about a call; it is in no part if it is not billed."""
    decision, offset, held, org_id, subscription, rate = (
        row[at] for at in (_DECISION, _OFFSET, _HELD, _ORG, _SUBSCRIPTION, _RATE)
    )
    cost, billed, price = (None if row[at] is None else Decimal(row[at]) for at in (_COST, _BILLED, _PRICE))
    where = row[_PART], offset, held, org_id, subscription
    return CountedCall(decision, *where, cost or ZERO, billed, rate, price, ledger_of(row[_PART]) or row[_LEDGER])


def rejected_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `litellm.usage.rejected` for rejected.sql, and `Resolved` for resolved.sql."""
    return read_rows(records, _rejected_row)


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


def receipt_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `billing.receipts` for receipts.sql: one per event, with its state after all of `records`."""
    states: dict[str, tuple[Any, ...]] = {}
    result = read_rows(records, _receipt)
    for [receipt] in result.rows:
        before = states.get(receipt.transaction_id)
        if receipt.status in _KNOWN and (before is None or _follows(before[1], receipt)):
            states[receipt.transaction_id] = _state(receipt, None if before is None else before[5])
    return Rows(list(states.values()), result.aside)


def value_of(record: KafkaRecord) -> bytes:
    """Return the record's JSON without NUL."""
    value = record.value or b""
    return without_nul(value) if NUL in value else value


def key_of(record: KafkaRecord) -> str:
    """Return the record's key as text without NUL, bounded as a name: it is the key of a table."""
    return bounded_name((record.key or b"").decode(errors="replace").replace("\0", ""))


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


def _usage_row(record: KafkaRecord) -> tuple[Any, ...]:
    usage = _decode_usage(value_of(record))
    return (
        bytes.fromhex(usage.identity),
        usage.start[:7] + "-01",
        usage.start,
        usage.end,
        record.timestamp,
        "" if usage.decision == METERED else alias_of(usage.call_id, usage.request_id),
        usage.decision,
        usage.status,
        bounded_name(usage.customer_id),
        usage.id_kind,
        bounded_name(usage.org_id),
        *_what_it_was(usage),
        str(usage.cost_usd),
        *_whose_it_was(usage),
        None if usage.billed_usd is None else str(usage.billed_usd),
        *_what_it_is_priced_by(usage),
        str(usage.seconds),
        None if usage.price_usd is None else str(usage.price_usd),
        *details_of(usage),
        usage.offset,
        usage.ledger,
    )


def billed_twice(rows: Sequence[tuple[Any, ...]]) -> tuple[list[tuple[bytes, str]], list[tuple[bytes, str]]]:
    """Return the keys of billed usage rows that may also be billed with another id, and of the rows of polled jobs."""
    billed = [row for row in rows if row[_PART] and row[_DECISION] != METERED]
    jobs = [row for row in billed if row[_CALL_TYPE] in JOBS or names_a_job(row[_REQUEST_ID])]
    return [(row[0], row[1]) for row in billed if row[_CALL_ID]], [(row[0], row[1]) for row in jobs]


def parts_billed(rows: Sequence[tuple[Any, ...]]) -> list[tuple[bytes, str, str, str]]:
    """Return key, part and customer of the billed usage rows, for copies.sql."""
    billed = (row for row in rows if row[_PART] and row[_DECISION] != METERED)
    return [(row[0], row[1], row[_PART], row[_CUSTOMER]) for row in billed]


def counted_by_ledgers(rows: Sequence[tuple[Any, ...]]) -> dict[tuple[bytes, str], CountedCall]:
    """Return what was decided about the calls of these usage rows whose ledger or part is known, by the key of the call."""
    return {(row[0], row[_MONTH]): _counted(row) for row in rows if row[_PART] or row[_LEDGER]}


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
        _bounded(event.properties.get("org_id")),
        event.properties.get("user_id"),
        event.precise_total_amount_cents or None,
        *((None,) * 5 if manifest is None else _manifest_columns(manifest)),
        int(headers[SEAL_SEQ]) if SEAL_SEQ in headers else None,
        record.timestamp,
        is_rated(event),
    )
    return row, [] if manifest is None else _released(part, manifest)


def _bounded(name: str | None) -> str | None:
    return None if name is None else bounded_name(name)


def _manifest_columns(manifest: Manifest) -> tuple[Any, ...]:
    windows = "{" + ",".join(map(str, manifest.windows)) + "}"
    return manifest.partition, manifest.first, manifest.last, manifest.count, windows


def _released(part: str, manifest: Manifest) -> list[str]:
    """Return the ids of the held parts that were merged into `part`; they differ from its id only in the first offset."""
    prefix = part.removesuffix(str(manifest.first))
    return [f"{prefix}{first}" for first in manifest.windows] if prefix != part else []


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


def _rejected_row(record: KafkaRecord) -> tuple[Any, ...]:
    headers = dict(record.headers)
    if RESOLVES in headers:
        how, audit_id = (headers.get(name, b"").decode() for name in (HOW, AUDIT_ID))
        return Resolved(int(headers[RESOLVES]), how, audit_id, record.timestamp)
    rejection = _decode_rejection(value_of(record))
    return (
        record.offset,
        rejection.at,
        rejection.stage,
        bounded_name(rejection.reason),
        rejection.detail,
        key_of(record),
        _rejected_cost(rejection),
        None if rejection.offset < 0 else rejection.offset,
        rejection.content_digest,
        msgspec.json.encode(ids_of(rejection)).decode(),
    )


def _rejected_cost(rejection: Rejection) -> str | None:
    """Return the cost in dollars, if the call has one in any of the fields that the meter reads, and in no other currency.
    The meter stores the whole envelope, the ingress only the element.
    """
    if rejection.call is msgspec.UNSET:
        return None
    try:
        call = _decode_raw(rejection.call).call if rejection.stage == "meter" else _decode_call(rejection.call)
        claims = [] if foreign_currency(call) else claims_of(call)
    except (*UNDECODABLE, DecimalException):
        return None
    for cost in claims:
        if cost.is_finite() and cost.copy_abs() < _COST_LIMIT and cost.adjusted() > -30:
            return format(cost, "f")
    return None


def without_nul(value: bytes) -> bytes:
    """Return the same JSON without NUL. Raises: msgspec.DecodeError."""
    return msgspec.json.encode(_clean(msgspec.json.decode(value)))


def _clean(member: Any) -> Any:
    if isinstance(member, str):
        return member.replace("\0", "")
    if isinstance(member, dict):
        return {_clean(name): _clean(value) for name, value in member.items()}
    return [_clean(one) for one in member] if isinstance(member, list) else member
