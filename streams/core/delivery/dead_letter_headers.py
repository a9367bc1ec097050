"""Writes and reads the headers of an event's record in the retry topic and in the dead letter topic.

All are UTF-8 text. Kafka Connect's headers (KIP-298) are added to ours, so that tools for its dead letters can list
them. Headers of other programs are kept; an unreadable one counts as absent.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from streams.core.delivery.batches import EventOutcome
from streams.core.delivery.maybe_sent import lago_may_have

Headers = list[tuple[str, bytes]]

#: In the retry topic: number of failures, time of the next post, and whether Lago may have the event already.
ATTEMPT, NOT_BEFORE, MAYBE_SENT = "attempt", "not_before", "maybe_sent"
#: Values of the last one. The third: what Lago has under its id must be compared with it. An earlier release takes it for
#: the first one: then the next repeat is looked up as well.
_NOT_SENT, _SENT, _COMPARE = b"0", b"1", b"2"
#: In both topics.
REASON, FIRST_ERROR, LAST_ERROR = "reason", "first_error", "last_error"
ORIGIN = ("origin_topic", "origin_partition", "origin_offset")
#: In the dead letters: the number of failures before it became a dead letter.
ATTEMPTS = "attempts"
#: Set when a dead letter is requeued: how often it was requeued.
REQUEUED = "requeued"
#: In the record that resolves a dead letter: the offset of the dead letter, the action, and the line in the audit
#: topic.
RESOLVES, HOW, AUDIT_ID = "resolves", "how", "audit_id"
CONNECT = "__connect.errors."

#: Replaced at each failure.
_LATEST = frozenset({ATTEMPT, ATTEMPTS, NOT_BEFORE, MAYBE_SENT, REASON, LAST_ERROR})
_ERROR_BYTES = 500


@dataclass(frozen=True, slots=True)
class DeliveryHistory:
    """The earlier attempts to deliver an event.

    Fields:
        attempt: number of failures; 0 if the record is in the events topic or was requeued.
        not_before_ms: earliest time of the next post, milliseconds since 1970 UTC; 0 = at once.
        maybe_sent: whether it is unknown if Lago stored it.
        requeued: how often it was requeued as a dead letter.
        compare: see `streams.core.delivery.batches.Item`.
    """

    attempt: int = 0
    not_before_ms: int = 0
    maybe_sent: bool = False
    requeued: int = 0
    compare: bool = False


@dataclass(frozen=True, slots=True)
class RecordOrigin:
    """The place of a record, and the consumer group and code that read it."""

    topic: str
    partition: int
    offset: int
    group: str
    worker: str


def delivery_history_of(headers: Iterable[tuple[str, bytes | None]]) -> DeliveryHistory:
    """Return the history in an event's headers. If several headers have the same name, the last one is used, as usual
    in Kafka. A requeued event has the reason of its dead letter; an earlier release wrote no more about some of them.
    """
    values = dict(headers)
    requeued = _number(values.get(REQUEUED))
    maybe_sent = values.get(MAYBE_SENT) in (_SENT, _COMPARE)
    if requeued:
        reason = (values.get(REASON) or b"").decode(errors="replace")
        maybe_sent = lago_may_have(reason, maybe_sent_of(values.items()))
    return DeliveryHistory(
        _number(values.get(ATTEMPT)),
        _number(values.get(NOT_BEFORE)),
        maybe_sent,
        requeued,
        requeued > 0 or values.get(MAYBE_SENT) == _COMPARE,
    )


def maybe_sent_of(headers: Iterable[tuple[str, bytes | None]]) -> bool | None:
    """Return whether Lago may have stored the event, as its headers say; None = they do not say it."""
    return {_NOT_SENT: False, _SENT: True, _COMPARE: True}.get(dict(headers).get(MAYBE_SENT) or b"")


def waiting(
    headers: Iterable[tuple[str, bytes]], place: RecordOrigin, outcome: EventOutcome, attempt: int, not_before_ms: int
) -> Headers:
    """Return the headers for the retry topic, for an event that failed `attempt` times."""
    own = [(ATTEMPT, b"%d" % attempt), (NOT_BEFORE, b"%d" % not_before_ms)]
    return [*_failed(headers, place, outcome), *own]


def dead(headers: Iterable[tuple[str, bytes]], place: RecordOrigin, outcome: EventOutcome, attempt: int) -> Headers:
    """Return the headers for the dead letter topic, for an event that failed `attempt` times."""
    kept = _failed(headers, place, outcome)
    return [*kept, (ATTEMPTS, b"%d" % attempt), *_as_connect(dict(kept), place, outcome)]


def _failed(headers: Iterable[tuple[str, bytes]], place: RecordOrigin, outcome: EventOutcome) -> Headers:
    """Return the event's headers with this failure added, and with the first error and the origin if they are missing."""
    kept = [header for header in headers if header[0] not in _LATEST and not header[0].startswith(CONNECT)]
    known = {name for name, _ in kept}
    error = _error(outcome)
    if FIRST_ERROR not in known:
        kept.append((FIRST_ERROR, error))
    if ORIGIN[0] not in known:
        origin = (place.topic, str(place.partition), str(place.offset))
        kept += [(name, value.encode()) for name, value in zip(ORIGIN, origin, strict=True)]
    maybe_sent = _COMPARE if outcome.compare else _SENT if outcome.maybe_sent else _NOT_SENT
    return [*kept, (LAST_ERROR, error), (REASON, outcome.reason.encode()), (MAYBE_SENT, maybe_sent)]


def _as_connect(own: dict[str, bytes], place: RecordOrigin, outcome: EventOutcome) -> Headers:
    """Return the headers of Connect's `DeadLetterQueueReporter` without the stack trace, because a refusal by Lago is
    no exception.
    """
    unread = outcome.reason == "malformed"
    connect_headers = {
        "topic": own[ORIGIN[0]],
        "partition": own.get(ORIGIN[1], b""),
        "offset": own.get(ORIGIN[2], b""),
        "connector.name": place.group.encode(),
        "task.id": str(place.partition).encode(),
        "stage": b"VALUE_CONVERTER" if unread else b"TASK_PUT",
        "class.name": place.worker.encode(),
        "exception.class.name": b"schemas.errors.Rejected" if outcome.kind == "dead" else b"schemas.errors.Unavailable",
        "exception.message": own[LAST_ERROR],
    }
    return [(CONNECT + name, value) for name, value in connect_headers.items()]


def _error(outcome: EventOutcome) -> bytes:
    """Return reason and detail, at most 500 bytes, cut between two characters."""
    text = f"{outcome.reason}: {outcome.detail}" if outcome.detail else outcome.reason
    return text.encode()[:_ERROR_BYTES].decode(errors="ignore").encode()


def _number(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() and len(value) < 19 else 0
