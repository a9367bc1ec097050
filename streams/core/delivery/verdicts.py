"""Decides what Lago's answer to a batch means for the events of the batch; pure.

docs/lago-behaviour.md describes the shapes of Lago's answers with their sources. The rules rest on three facts. Lago
stores a batch wholly or not at all. Lago refuses a repeat by its transaction id. A refusal by Lago has Lago's JSON
format, so an answer of a proxy or another server refuses no event.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

import msgspec

from schemas.decoding import UNDECODABLE
from schemas.errors import Rejected
from schemas.moments import parse_us
from schemas.records import LagoEvent
from streams.core.delivery.retry_after import requested_wait_s

DETAIL_CHARS = 500
#: Older versions stored the other events of a batch that was refused for a duplicate (docs/lago-behaviour.md, 3).
WHOLE_BATCHES_SINCE = (1, 39)

#: Statuses after which Lago or our key cannot be used at all for now.
_OPENS_BREAKER = frozenset({401, 403, 429})
#: Statuses that the content of a batch never causes, so the batch is not split.
_NEVER_THE_BATCH = frozenset({401, 402, 404, 405, 415, 429})
#: Statuses of a proxy that redirects, times out or fails, and may have forwarded the batch. Lago itself never
#: redirects.
_MAY_HIDE_A_STORED_BATCH = frozenset({*range(300, 400), 408, *range(500, 600)})
_SPLITS = {400: "bad_request", 413: "too_large"}
_TOO_LARGE = 413
#: The answer is not from Lago: a proxy's page, another server, a network's login page.
NOT_LAGO = "not_lago"
#: The members of Lago's shortest refusal (docs/lago-behaviour.md, 1.5); other servers add a path, a time or a message.
_SHORTEST = frozenset({"status", "error"})
#: Codes after which the same event may be accepted later: an operator edits an expression, or a lock is released.
_HEALS = frozenset({"expression_evaluation_failed", "lock_acquisition_failed"})
_REASONS = {
    ("timestamp", "invalid_format"): "invalid_timestamp",
    ("code", "value_is_mandatory"): "missing_code",
    ("transaction_id", "value_is_mandatory"): "missing_transaction_id",
}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP answer; header names in any case. `at`: when it came, seconds since 1970 UTC by the wall clock."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: float = 0.0


class ErrorKind(StrEnum):
    """The kinds of errors of one event in an answer with status 422."""

    EXISTS = "exists"
    HEALS = "heals"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class EventError:
    """Lago's error for one event; `detail` is Lago's text, at most 500 characters."""

    fate: ErrorKind
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Lago stored every event of the batch."""


@dataclass(frozen=True, slots=True)
class RefusedEvents:
    """Lago stored no event. `marks` has the errors by position; the other events may be posted again at once."""

    marks: Mapping[int, EventError]


@dataclass(frozen=True, slots=True)
class SplitBatch:
    """Lago stored no event, and names none as the cause. Each half is posted separately.

    Fields:
        by_lago: False = a proxy refused the body, which does not prove that Lago is reachable.
    """

    by_lago: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Post the same events again after a wait.

    Fields:
        unknown: whether Lago may have stored the events.
        opens: whether the breaker opens at once.
        isolates: whether the batch itself may be the cause. If it keeps failing while others are accepted, it is split.
        alone: whether it is split even if no other batch is accepted; False if only another batch's success can show
            that Lago is reachable.
        wait_s: requested wait, at most 60 seconds; None = use a backoff.
    """

    reason: str
    detail: str = ""
    unknown: bool = False
    opens: bool = False
    isolates: bool = False
    wait_s: float | None = None
    alone: bool = True


Verdict = Delivered | RefusedEvents | SplitBatch | RetryLater


class _Named(msgspec.Struct, gc=False):
    transaction_id: Any = None


class _Echo(msgspec.Struct):
    events: list[_Named]


@dataclass(frozen=True, slots=True)
class LagoRefusal:
    """A refusal by Lago itself; `code`: `""` = Lago sent none."""

    code: str = ""
    details: Any = None


_members = msgspec.json.Decoder(dict[str, Any]).decode


def refusal_of(status: int, body: bytes) -> LagoRefusal | None:
    """Return Lago's refusal in an answer that is no success; None if the answer is not Lago's.

    Lago's body has the status, an error text, and usually a code and details (`api_errors.rb` of lago-api).
    """
    try:
        members = _members(body)
    except UNDECODABLE:
        return None
    code = str(members["code"]) if isinstance(members.get("code"), str) else ""
    detailed, named = "error_details" in members, isinstance(members.get("error"), str)
    if members.get("status", status if detailed else None) != status:
        return None
    is_lagos = detailed or (named and (code or members.keys() <= _SHORTEST))
    return LagoRefusal(code, members.get("error_details")) if is_lagos else None


def verdict_on_batch(answer: HttpResponse, sent: int, ids: Collection[str] = ()) -> Verdict:
    """Return the verdict on a batch of `sent` events, at least one.

    Args:
        ids: transaction ids of the events; empty = the ids in the answer are not compared with them.
    """
    if 200 <= answer.status < 300:
        return _accepted(answer, sent, ids)
    if answer.status == 422:
        return _refused(answer, sent)
    if answer.status in _SPLITS:
        return _body_refused(answer, sent)
    return RetryLater(
        f"http_{answer.status}",
        f"HTTP {answer.status}",
        unknown=answer.status in _MAY_HIDE_A_STORED_BATCH,
        opens=answer.status in _OPENS_BREAKER,
        isolates=answer.status not in _NEVER_THE_BATCH,
        wait_s=requested_wait_s(answer.status, answer.headers, answer.at),
    )


def unanswered(reason: str, detail: str = "") -> RetryLater:
    """Return the verdict if no answer came. The reason `connect` means that nothing was sent."""
    connected = reason != "connect"
    return RetryLater(reason, detail[:DETAIL_CHARS], unknown=connected, opens=not connected, isolates=connected)


def lookup_failed(reason: str, detail: str = "") -> RetryLater:
    """Return the verdict if a look-up failed. Nothing was posted, and no batch causes a refused key."""
    _, _, status = reason.rpartition("http_")
    number = int(status) if status.isdigit() else 0
    opens = number in _OPENS_BREAKER or reason == "connect"
    return RetryLater(reason, detail[:DETAIL_CHARS], opens=opens, isolates=not opens and number not in _NEVER_THE_BATCH)


def batches_are_whole(version: str) -> bool:
    """Return whether this Lago stores a batch wholly or not at all: v1.39.0 and later, and any version that is not the
    tag of a release.
    """
    numbers = [int(part) for part in version.removeprefix("v").split(".")[:2] if part.isascii() and part.isdigit()]
    return len(numbers) < 2 or tuple(numbers) >= WHOLE_BATCHES_SINCE


def same_event(stored: LagoEvent, value: bytes) -> bool:
    """Return whether Lago's event equals the one in `value`: code, subscription, time to the ms, and amount. An event
    without an amount has the amount 0.
    """
    try:
        sent = msgspec.json.decode(value, type=LagoEvent)
        return (
            stored.code == sent.code
            and stored.external_subscription_id == sent.external_subscription_id
            and parse_us(stored.timestamp) // 1000 == parse_us(sent.timestamp) // 1000
            and Decimal(stored.precise_total_amount_cents or 0) == Decimal(sent.precise_total_amount_cents or 0)
        )
    except (*UNDECODABLE, Rejected, InvalidOperation):
        return False


def _accepted(answer: HttpResponse, sent: int, ids: Collection[str]) -> Verdict:
    """Check that Lago accepted the events: Lago returns every event, and a proxy that answers 200 does not. A mock server, or a
    proxy that confuses its connections, returns others.
    """
    try:
        echoed = [event.transaction_id for event in msgspec.json.decode(answer.body, type=_Echo).events]
    except UNDECODABLE:
        detail = f"HTTP {answer.status} with {len(answer.body)} bytes that are not Lago's answer"
        return RetryLater("bad_answer", detail, unknown=True, opens=True, isolates=True, alone=False)
    if len(echoed) != sent:
        return RetryLater("bad_answer", f"{sent} events sent, {len(echoed)} echoed", unknown=True, isolates=True)
    if ids and not {name for name in echoed if isinstance(name, str)}.issubset(ids):
        detail = f"HTTP {answer.status} with events that were not sent"
        return RetryLater("bad_answer", detail, unknown=True, opens=True, isolates=True, alone=False)
    return Delivered()


def _body_refused(answer: HttpResponse, sent: int) -> Verdict:
    """Return the verdict for a body that a proxy refuses because of its size. Smaller bodies may be accepted, so no
    event becomes a dead letter.
    """
    reason = _SPLITS[answer.status]
    if refusal_of(answer.status, answer.body) is not None:
        return _blame(sent, reason, f"HTTP {answer.status}")
    if answer.status != _TOO_LARGE:
        return _not_lago(answer)
    if sent > 1:
        return SplitBatch(by_lago=False)
    return RetryLater(reason, "HTTP 413 that is not Lago's", opens=True, isolates=True, alone=False)


def _not_lago(answer: HttpResponse) -> RetryLater:
    """Return the verdict for an answer that is not Lago's. It refuses no event, and it is unknown whether Lago got the
    events.
    """
    detail = f"HTTP {answer.status} with {len(answer.body)} bytes that are not Lago's answer"
    return RetryLater(NOT_LAGO, detail, unknown=True, opens=True, isolates=True, alone=False)


def _refused(answer: HttpResponse, sent: int) -> Verdict:
    refusal = refusal_of(answer.status, answer.body)
    if refusal is None:
        return _not_lago(answer)
    marks = _marks(refusal.details, sent)
    if marks:
        return RefusedEvents(marks)
    if refusal.code in _HEALS:
        return RetryLater(
            refusal.code, "HTTP 422", isolates=True, wait_s=requested_wait_s(answer.status, answer.headers, answer.at)
        )
    return _blame(sent, "lago_refused", _text(refusal.details) or "HTTP 422 without an index")


def _blame(sent: int, reason: str, detail: str) -> Verdict:
    return RefusedEvents({0: EventError(ErrorKind.DEAD, reason, detail)}) if sent == 1 else SplitBatch()


def _marks(details: Any, sent: int) -> dict[int, EventError] | None:
    """Read `{"<index>": <error>}` as errors by position; None if it is no index map of this batch."""
    if not isinstance(details, dict):
        return None
    marks = {}
    for index, error in details.items():
        if not (index.isascii() and index.isdigit() and len(index) <= len(str(sent)) and int(index) < sent):
            return None
        marks[int(index)] = _mark(error)
    return marks


def _mark(error: Any) -> EventError:
    if error == {"transaction_id": ["value_already_exist"]}:
        return EventError(ErrorKind.EXISTS, "already_exists")
    codes = list(_codes(error))
    healing = next((code for _, code in codes if code in _HEALS), None)
    if healing:
        return EventError(ErrorKind.HEALS, healing, _text(error))
    reason = next((_REASONS[pair] for pair in codes if pair in _REASONS), "lago_refused")
    return EventError(ErrorKind.DEAD, reason, _text(error))


def _codes(error: Any) -> list[tuple[str, str]]:
    """Return (field, code) of `{"field": ["code"]}`; the field is `""` for a text such as `code: explanation`."""
    if isinstance(error, str):
        return [("", error.partition(":")[0].strip())]
    if not isinstance(error, dict):
        return []
    return [(field, str(code)) for field, codes in error.items() if isinstance(codes, list) for code in codes]


def _text(error: Any) -> str:
    text = error if isinstance(error, str) else "; ".join(f"{field}: {code}" for field, code in _codes(error))
    return text[:DETAIL_CHARS]
