"""The headers of an event's record in the retry topic and among the dead letters: written and read.

All are UTF-8 text. Kafka Connect's headers (KIP-298) stand beside ours, so that tools for its dead letters list these
too. Headers of other programs are kept; an unreadable one counts as absent.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from streams.core.delivery.batches import EventOutcome

Headers = list[tuple[str, bytes]]

#: In the retry topic: failures so far, when it may be posted again, whether Lago may have it already.
ATTEMPT, NOT_BEFORE, MAYBE_SENT = "attempt", "not_before", "maybe_sent"
#: In both topics.
REASON, FIRST_ERROR, LAST_ERROR = "reason", "first_error", "last_error"
ORIGIN = ("origin_topic", "origin_partition", "origin_offset")
#: In the dead letters: the failures that made it one.
ATTEMPTS = "attempts"
#: Set when a dead letter is put back: how often that was done.
REQUEUED = "requeued"
#: In the record that resolves a dead letter: the letter's offset, what was done, and the line in the audit topic.
RESOLVES, HOW, AUDIT_ID = "resolves", "how", "audit_id"
CONNECT = "__connect.errors."

#: Replaced at each failure.
_LATEST = frozenset({ATTEMPT, ATTEMPTS, NOT_BEFORE, MAYBE_SENT, REASON, LAST_ERROR})
_ERROR_BYTES = 500


@dataclass(frozen=True, slots=True)
class DeliveryHistory:
    """The earlier attempts to deliver an event.

    Fields:
        attempt: failures so far; 0 where it comes from the events topic or was requeued.
        not_before_ms: milliseconds since 1970 UTC before which it is not posted; 0 = at once.
        maybe_sent: it is unknown whether Lago stored it.
        requeued: how often it was a dead letter and came back.
    """

    attempt: int = 0
    not_before_ms: int = 0
    maybe_sent: bool = False
    requeued: int = 0


@dataclass(frozen=True, slots=True)
class RecordOrigin:
    """Where a record was read, and by which consumer group and code."""

    topic: str
    partition: int
    offset: int
    group: str
    worker: str


def delivery_history_of(headers: Iterable[tuple[str, bytes | None]]) -> DeliveryHistory:
    """The history in an event's headers. Of several headers of one name the last counts, as everywhere in Kafka."""
    values = dict(headers)
    return DeliveryHistory(
        _number(values.get(ATTEMPT)),
        _number(values.get(NOT_BEFORE)),
        values.get(MAYBE_SENT) == b"1",
        _number(values.get(REQUEUED)),
    )


def waiting(
    headers: Iterable[tuple[str, bytes]], place: RecordOrigin, outcome: EventOutcome, attempt: int, not_before_ms: int
) -> Headers:
    """Headers for the retry topic, of an event that failed `attempt` times."""
    own = [(ATTEMPT, b"%d" % attempt), (NOT_BEFORE, b"%d" % not_before_ms)]
    return [*_failed(headers, place, outcome), *own]


def dead(headers: Iterable[tuple[str, bytes]], place: RecordOrigin, outcome: EventOutcome, attempt: int) -> Headers:
    """Headers for the dead letters, of an event that failed `attempt` times."""
    kept = _failed(headers, place, outcome)
    return [*kept, (ATTEMPTS, b"%d" % attempt), *_as_connect(dict(kept), place, outcome)]


def _failed(headers: Iterable[tuple[str, bytes]], place: RecordOrigin, outcome: EventOutcome) -> Headers:
    """The event's headers, with this failure, and with the first error and the origin where they are missing."""
    kept = [header for header in headers if header[0] not in _LATEST and not header[0].startswith(CONNECT)]
    known = {name for name, _ in kept}
    error = _error(outcome)
    if FIRST_ERROR not in known:
        kept.append((FIRST_ERROR, error))
    if ORIGIN[0] not in known:
        origin = (place.topic, str(place.partition), str(place.offset))
        kept += [(name, value.encode()) for name, value in zip(ORIGIN, origin, strict=True)]
    maybe_sent = b"1" if outcome.maybe_sent else b"0"
    return [*kept, (LAST_ERROR, error), (REASON, outcome.reason.encode()), (MAYBE_SENT, maybe_sent)]


def _as_connect(own: dict[str, bytes], place: RecordOrigin, outcome: EventOutcome) -> Headers:
    """The headers of Connect's `DeadLetterQueueReporter` except the stack trace, because Lago's refusal is no exception
    of ours.
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
    """Reason and detail, at most 500 bytes, cut between two characters."""
    text = f"{outcome.reason}: {outcome.detail}" if outcome.detail else outcome.reason
    return text.encode()[:_ERROR_BYTES].decode(errors="ignore").encode()


def _number(value: bytes | None) -> int:
    return int(value) if value and value.isdigit() and len(value) < 19 else 0
