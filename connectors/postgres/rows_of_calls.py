"""Makes rows for the calls that were counted, and for those that were rejected. Tells which call a rebuilt ledger has counted
again, and which may be billed twice.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from connectors.postgres.call_details import details_of
from connectors.postgres.rejected_cost import cost_of
from connectors.postgres.rejected_ids import ids_of
from connectors.postgres.rows import KafkaRecord, Rows, key_of, read_rows, value_of
from schemas.bounded_name import bounded_name
from schemas.decoding import decoder
from schemas.money import ZERO, plain
from schemas.normalised_call import TOKENS
from schemas.records import EnrichedUsage, Rejection
from streams.core.delivery.dead_letter_headers import AUDIT_ID, HOW, RESOLVES
from streams.core.metering.call_kinds import JOBS
from streams.core.metering.decisions import BILLED, CARRIED, METERED, REJECTED
from streams.core.metering.spend_log_ids import alias_of, names_a_job

_decode_usage = decoder(EnrichedUsage)
_decode_rejection = decoder(Rejection)
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


class CountedCall(NamedTuple):
    """What a ledger has decided about a call. Everything else in a row is the same whenever its raw record is counted.

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
    has only the row with the cost; if a rebuilt ledger has counted it again, the later row. If that ledger has rejected
    it, the result may also have the row of a later copy; the rejected rows come first.
    """
    result = read_rows(records, _usage_row)
    rows, refused = dict[Any, tuple[Any, ...]](), dict[Any, tuple[Any, ...]]()
    for row in result.rows:
        key = row[0], row[_MONTH]
        before = rows.get(key)
        again = before is None or is_recounted(_counted(before), _counted(row))
        if row[_DECISION] == REJECTED:
            refused[key] = row
            if again:
                rows.pop(key, None)
        elif before is None or again or _weight(row[_DECISION]) > _weight(before[_DECISION]):
            rows[key] = row
    return Rows([*refused.values(), *rows.values()], result.aside)


def _weight(decision: str) -> int:
    """A later row of a call replaces one of less weight."""
    return 2 if decision in BILLED else int(decision == CARRIED)


def is_recounted(before: CountedCall, after: CountedCall) -> bool:
    """Return whether a ledger has counted the same record of the raw topic again, with another result. Only a rebuilt ledger
    does: it counts the calls of open and held windows, by the mappings and settings of today. It may not bill them.

    Args:
        before, after: of one call and partition. Two topics may have it at one offset: the parts must have one name or ledger.
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


class Resolved(NamedTuple):
    """The resolution of the rejection at `offset` of the same partition."""

    offset: int
    resolution: str
    audit_id: str
    resolved_ms: int


def rejected_rows(records: Iterable[KafkaRecord]) -> Rows:
    """Rows of `litellm.usage.rejected` for rejected.sql, and `Resolved` for resolved.sql."""
    return read_rows(records, _rejected_row)


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
        None if (cost := cost_of(rejection)) is None else plain(cost),
        None if rejection.offset < 0 else rejection.offset,
        rejection.content_digest,
        msgspec.json.encode(ids_of(rejection)).decode(),
    )
