"""Reads dead letters: events that Lago refused, and calls that the meter or the ingress refused.

A dead letter stays in its topic as long as the topic keeps records. An action on it is a later record in the same
partition, a *mark*, whose header `resolves` holds the offset of the dead letter. So the topic alone shows which dead
letters are open.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal, DecimalException
from itertools import islice
from typing import NamedTuple

import msgspec
from confluent_kafka import Message

from connectors.config.deployment import Deployment
from connectors.config.kafka_connection import KafkaConnection
from connectors.kafka.topic_scan import OffsetRange, header_of, number_in_header, offset_range_of, scan, whole_number
from connectors.operations.dismissed import Dismissed
from connectors.operations.reread import read_again
from connectors.postgres.rejected_cost import cost_of
from connectors.postgres.rejected_ids import ids_of
from schemas.bounded_name import bounded_name
from schemas.decoding import decoder
from schemas.errors import Rejected
from schemas.money import from_cents
from schemas.normalised_call import Usage
from schemas.records import LagoEvent, Rejection
from schemas.topics import TopicNames
from streams.core.delivery.dead_letter_headers import (
    ATTEMPTS,
    AUDIT_ID,
    FIRST_ERROR,
    HOW,
    LAST_ERROR,
    REASON,
    REQUEUED,
    RESOLVES,
    maybe_sent_of,
)
from streams.core.delivery.maybe_sent import lago_may_have
from streams.core.metering.customer_key import CUSTOMER_ID_FIELDS
from streams.core.metering.read_usage import usage_of as read_usage
from streams.core.metering.tolerant_reader import forms_of
from streams.runtime.transactions import Write

#: Marks of a dismissed dead letter, or of a call that was counted already. They also hold for later copies of the call.
DISMISSING = frozenset({"purged", "known"})
EVENTS, CALLS = KINDS = ("events", "calls")
BOTH = "both"

_event = decoder(LagoEvent)
_rejection = decoder(Rejection)


@dataclass(frozen=True, slots=True)
class Filters:
    """A selection of dead letters. A field that is empty or None does not filter.

    Fields:
        customer: LiteLLM's customer id.
        since_ms, until_ms: the range `[since, until)` of the dead letter's own time, milliseconds since 1970 UTC.
        dead_letter: id of one dead letter: kind, partition and offset, for example `events/0/17`.
        may_be_in_lago: whether Lago may have it, see `may_be_in_lago`; a refused call is never at Lago.
    """

    reason: str = ""
    customer: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    dead_letter: str = ""
    may_be_in_lago: bool | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter.

    Fields:
        id: `events/<partition>/<offset>` or `calls/<partition>/<offset>`.
        at_ms: timestamp of the dead letter's record, milliseconds since 1970 UTC.
        usd: the amount of the event or the cost of the call, dollars, also if it is what was refused; None = it cannot be
            read.
        stored: the refused call as the raw topic has or would have it; empty if too little of the call is left.
        call_ids: ids of a refused call, see `ids_of`; empty for an event.
    """

    kind: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    at_ms: int
    reason: str = ""
    customer: str = ""
    subscription: str = ""
    transaction_id: str = ""
    usd: Decimal | None = None
    attempts: int = 0
    first_error: str = ""
    last_error: str = ""
    requeued: int = 0
    stored: bytes = b""
    call_ids: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The dead letter's id in every command."""
        return f"{self.kind}/{self.partition}/{self.offset}"


class DeadLetterMark(NamedTuple):
    """The record of an action on a dead letter: `requeued`, `purged`, or `known` for a call that was counted already."""

    dead_letter: DeadLetter
    how: str
    audit_id: str

    def write(self, topic: str) -> Write:
        """Return the mark as a record."""
        offset = str(self.dead_letter.offset).encode()
        headers = [(RESOLVES, offset), (HOW, self.how.encode()), (AUDIT_ID, self.audit_id.encode())]
        return Write(topic, self.dead_letter.partition, self.dead_letter.key, None, headers)


def expected_forms(dead_letter: DeadLetter) -> dict[str, str]:
    """Return what is accepted in each field for which a call was rejected, by the field's path, for messages."""
    return forms_of(dead_letter.last_error) if dead_letter.kind == CALLS else {}


def may_be_in_lago(dead_letter: DeadLetter) -> bool:
    """Return whether Lago may have the event of a dead letter, see `lago_may_have`; a refused call is never at Lago."""
    return dead_letter.kind == EVENTS and lago_may_have(dead_letter.reason, maybe_sent_of(dead_letter.headers))


def topic_of(kind: str, topics: TopicNames) -> str:
    """Return the topic of the dead letters of a kind."""
    return topics.dlq if kind == EVENTS else topics.rejected


def unresolved(
    deployment: Deployment, kind: str, filters: Filters, passed: Callable[[int], None] = lambda _offsets: None
) -> Iterator[DeadLetter]:
    """Yield the open dead letters of one kind, in order within a partition. The topic is read twice.

    Raises: see `scan`.
    """
    kafka, topics = deployment.kafka, deployment.topics
    # A call that was dismissed before `since` also dismisses its copies after it, so calls are read from the beginning.
    stretch = offset_range_of(kafka, topic_of(kind, topics), filters.since_ms if kind == EVENTS else None)
    done = _resolved(kafka, stretch, passed)
    dismissed = Dismissed({place for place, how in done.items() if how in DISMISSING} if kind == CALLS else ())
    for message in scan(kafka, stretch, passed):
        if dismissed.is_copy(message) or message.timestamp()[1] < (filters.since_ms or 0):
            continue
        if header_of(message, RESOLVES) or (message.partition(), message.offset()) in done:
            continue
        dead_letter = dead_letter_of(kind, message, deployment.customer_id_fields)
        if selected(dead_letter, filters):
            yield dead_letter


def found_letters(
    deployment: Deployment, kind: str, filters: Filters, limit: int | None = None
) -> Iterator[DeadLetter]:
    """Return at most `limit` open dead letters of a kind, or of `BOTH`; None = all. Raises: see `scan`."""
    kinds = [
        one
        for one in KINDS
        if kind in (BOTH, one) and (not filters.dead_letter or filters.dead_letter.startswith(f"{one}/"))
    ]
    return islice((dead_letter for kind in kinds for dead_letter in unresolved(deployment, kind, filters)), limit)


def rejected_with_id(deployment: Deployment, call_id: str) -> list[DeadLetter]:
    """Return the open dead letters of calls with this request id or call id. All rejected calls are read. Raises: see
    `scan`.
    """
    return [one for one in unresolved(deployment, CALLS, Filters()) if bounded_name(call_id) in one.call_ids]


def dead_letter_of(kind: str, message: Message, fields: tuple[str, ...] = CUSTOMER_ID_FIELDS) -> DeadLetter:
    """Read a dead letter from a record of the dead-letter or the rejected topic; `fields`: `CUSTOMER_ID_FIELDS`."""
    key = message.key()
    bare = DeadLetter(
        kind,
        message.partition() or 0,
        message.offset() or 0,
        bytes(key) if key else None,
        bytes(message.value() or b""),
        tuple((name, bytes(content or b"")) for name, content in message.headers() or ()),
        message.timestamp()[1],
    )
    return _dead_event(bare) if kind == EVENTS else _refused_call(bare, fields)


def _dead_event(bare: DeadLetter) -> DeadLetter:
    values = {name: value.decode(errors="replace") for name, value in bare.headers}
    dead_letter = replace(
        bare,
        reason=values.get(REASON, ""),
        attempts=_number(values.get(ATTEMPTS)),
        first_error=values.get(FIRST_ERROR, ""),
        last_error=values.get(LAST_ERROR, ""),
        requeued=_number(values.get(REQUEUED)),
    )
    try:
        event = _event(bare.value)
        usd = from_cents(Decimal(event.precise_total_amount_cents or 0))
    except (msgspec.DecodeError, DecimalException):
        return dead_letter
    return replace(
        dead_letter,
        customer=event.properties.get("user_id", ""),
        subscription=event.external_subscription_id,
        transaction_id=event.transaction_id,
        usd=usd,
    )


def _refused_call(bare: DeadLetter, fields: tuple[str, ...]) -> DeadLetter:
    customer = bare.key.decode(errors="replace") if bare.key else ""
    try:
        refused = _rejection(bare.value)
    except msgspec.DecodeError:
        return replace(bare, reason="unreadable", customer=customer)
    stored = bytes(refused.call) if refused.stage == "meter" and isinstance(refused.call, msgspec.Raw) else b""
    if refused.stage == "ingress" and (again := read_again(refused, fields)) is not None:
        customer, stored = again
    return replace(
        bare,
        reason=refused.reason,
        customer=customer,
        usd=cost_of(refused),
        last_error=refused.detail,
        stored=stored,
        call_ids=ids_of(refused),
    )


def usage_of(stored: bytes, customer: str, unit: Decimal) -> Usage | None:
    """Read the usage in a value of the raw topic as the meter reads it; None if the meter would refuse the value."""
    try:
        return read_usage(stored, bounded_name(customer), unit)
    except Rejected:
        return None


def _resolved(
    kafka: KafkaConnection, stretch: OffsetRange, passed: Callable[[int], None]
) -> dict[tuple[int | None, int | None], str]:
    """Collect the marks of dead letters, by partition and offset."""
    return {
        (message.partition(), offset): header_of(message, HOW)
        for message in scan(kafka, stretch, passed)
        if (offset := number_in_header(message, RESOLVES)) is not None
    }


def selected(dead_letter: DeadLetter, filters: Filters) -> bool:
    """Return whether a dead letter is in a selection; `unresolved` has applied `since_ms`."""
    return (
        filters.reason in ("", dead_letter.reason)
        and filters.customer in ("", dead_letter.customer)
        and filters.dead_letter in ("", dead_letter.id)
        and (filters.until_ms is None or dead_letter.at_ms < filters.until_ms)
        and filters.may_be_in_lago in (None, may_be_in_lago(dead_letter))
    )


def _number(text: str | None) -> int:
    return whole_number(text or "") or 0
