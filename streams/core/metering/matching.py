"""Whether a copy of a call is in the usage log already, and whether it says something new about its money.

Pure: the log's rows are handed in. Two questions are kept apart. *Is it the same call?* By identity; by alias and start;
by both ids however far the starts lie apart, for LiteLLM's database has other times than its callbacks; by the request id
and the start where one side has no call id. *Is there something to bill?* Presence says nothing about that: a call
that was counted without a price owes its money as soon as a copy has one.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

from schemas.policy import MeterPolicy
from schemas.usage import Usage
from streams.core.metering.call_kinds import JOBS
from streams.core.metering.call_meaning import SEALED
from streams.core.metering.decisions import BILLED, FAILED_CALL, METERED, UNPRICED, ZERO_COST, decide
from streams.core.metering.spend_log_ids import alias_of, base_of, names_a_job

#: How far the starts of one call may lie apart, microseconds: the database rounds to milliseconds.
APART_US: Final = 2000
#: Decisions that a price changes; others stand whatever a copy costs.
PRICEABLE: Final = frozenset({UNPRICED, ZERO_COST, FAILED_CALL})
#: Dollars: what two ways to write one binary float differ by, at the most.
NOISE: Final = Decimal("1e-9")
_MILLISECOND_US = 1000
#: How long after a call's end a callback that tells its moment alone may tell of it, microseconds; nothing is retried.
TOLD_AFTER_US: Final = 900_000_000
#: How far the clocks that tell the two may be apart, microseconds.
_CLOCKS_US = 2_000_000
#: Kind of the customer id of LiteLLM's `lago` callback, whose ids are random.
_BY_LAGO = "subscription"

#: What is to be done about a copy.
#: missing: never counted, to be sent. known: nothing to do. priced: counted without a price and this copy has one, to be
#: sent. other_cost: billed at another cost, to be told. unclear: whether it was counted cannot be seen.
MISSING, KNOWN, PRICED, OTHER_COST, UNCLEAR = VERDICTS = ("missing", "known", "priced", "other_cost", "unclear")


class LoggedCall(NamedTuple):
    """A row of the usage log.

    Fields:
        billed: it is in a part, or was; its cost is in a bill or waits for one.
        start_us: microseconds since 1970 UTC.
    """

    identity: bytes
    decision: str
    status: str
    cost: Decimal
    billed: bool
    customer_id: str
    id_kind: str
    model: str
    call_id: str
    request_id: str
    start_us: int


class CopyVerdict(NamedTuple):
    """What is to be done about a copy, and the row it was judged by; None where there is none."""

    word: str
    row: LoggedCall | None = None


def verdict(copy: Usage, rows: Iterable[LoggedCall], policy: MeterPolicy) -> CopyVerdict:
    """What the log says about `copy`; `rows` are whatever may be the same call."""
    same: list[LoggedCall] = []
    unclear: LoggedCall | None = None
    for row in rows:
        answer = same_call(copy, row)
        if answer:
            same.append(row)
        elif answer is None:
            unclear = row
    if copy.cost and copy.note.endswith(SEALED) and not any(row.billed for row in same):
        # Of a response whose polls have other ids each: whether another one was billed cannot be seen. One that costs
        # nothing, as LiteLLM makes them beside a database, owes nothing whatever was billed.
        return CopyVerdict(UNCLEAR, unclear)
    if not same:
        return CopyVerdict(MISSING) if unclear is None else CopyVerdict(UNCLEAR, unclear)
    billed = [row for row in same if row.billed]
    if billed:
        if not copy.cost or any(abs(row.cost - copy.cost) <= NOISE for row in billed):
            return CopyVerdict(KNOWN, billed[0])
        return CopyVerdict(OTHER_COST, billed[0])
    if of_a_job(copy):  # each customer's job is one of its own: the price is the one's whose row it is
        same = [row for row in same if row.customer_id == copy.customer_id]
        if not same:
            return CopyVerdict(MISSING)
    if all(row.decision in PRICEABLE for row in same) and decide(copy, policy) in BILLED:
        return CopyVerdict(PRICED, same[0])
    return CopyVerdict(KNOWN, same[0])


def same_call(copy: Usage, row: LoggedCall) -> bool | None:
    """Whether `row` is the call that `copy` tells of; None where that cannot be known.

    Two calls may share a call id, for clients choose it, and a request id, for providers repeat theirs; both together
    and a start in whole milliseconds are a row of LiteLLM's database, where the request id is unique. Without a call
    id, an equal request id at another start may be the call or its successor. Other callbacks (`openmeter`) and senders
    tell one moment, mostly the end, and one id, the request's or the call's; LiteLLM's `lago` callback tells no id of LiteLLM's at all.
    """
    if copy.identity == row.identity or (copy.job and copy.job == row.identity):
        return True
    if copy.metered is not None or row.decision == METERED:
        return False
    near = abs(copy.start_us - row.start_us) <= APART_US
    alias = alias_of(copy.call_id, copy.request_id)
    base = base_of(copy.request_id)
    told_after = bool(copy.call_id) and _told_after(copy, row, copy.start_us - APART_US)
    if (near or told_after) and alias and alias == alias_of(row.call_id, row.request_id):
        # A try that failed at once and the success that followed it are two calls under one call id.
        return row.status != "failure" or copy.status == "failure" or base == base_of(row.request_id)
    if not base or base != base_of(row.request_id):
        return None if _by_lago(copy, row) else False
    if of_a_job(copy) or names_a_job(row.request_id):
        return True
    if copy.call_id and row.call_id:
        coarse = not copy.start_us % _MILLISECOND_US or not row.start_us % _MILLISECOND_US
        return copy.call_id == row.call_id and coarse
    if near or told_after:
        return True
    return None if not copy.call_id else False


def _by_lago(copy: Usage, row: LoggedCall) -> bool:
    """Whether LiteLLM's `lago` callback may have told of the call: then its customer and its cost are all that is known."""
    alike = row.customer_id == copy.customer_id and abs(row.cost - copy.cost) <= NOISE
    return bool(
        copy.cost
        and alike
        and row.id_kind == _BY_LAGO != copy.id_kind
        and _told_after(copy, row, copy.end_us - _CLOCKS_US)
    )


def _told_after(copy: Usage, row: LoggedCall, first_us: int) -> bool:
    return not row.call_id and first_us <= row.start_us <= copy.end_us + TOLD_AFTER_US


def of_a_job(copy: Usage) -> bool:
    """Whether it tells of a job, whose id alone names it: a poll, or LiteLLM's own row about it."""
    return bool(copy.job and copy.job == copy.identity) or copy.call_type in JOBS or names_a_job(copy.request_id)


def nameless(copy: Usage) -> bool:
    """A copy without a call id and with no request id of its own: nothing finds it again by another route."""
    return copy.metered is None and not copy.call_id and not base_of(copy.request_id)
