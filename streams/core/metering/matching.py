"""Decides whether the usage log has the call of a copy already, and whether the copy adds an amount to bill.

Pure: the caller passes the rows of the log. There are two questions. *Is it the same call?* It is compared by identity;
by alias and start; by both ids regardless of the starts, because LiteLLM's database and its callbacks have different
times; by request id and start if one side has no call id. *Is there something to bill?* A row in the log is not enough:
a call that was counted without a price must be billed if a copy has one.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from schemas.money import ZERO
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from streams.core.metering.call_kinds import JOBS
from streams.core.metering.call_meaning import SEALED
from streams.core.metering.decisions import BILLED, LOST, METERED, PRICEABLE, REJECTED, decide
from streams.core.metering.identity import identity_of
from streams.core.metering.spend_log_ids import alias_of, base_of, names_a_job

#: The largest difference between two starts of one call, microseconds. The database rounds to milliseconds.
APART_US: Final = 2000
#: The largest difference between two texts of one binary float, dollars.
NOISE: Final = Decimal("1e-9")
_MILLISECOND_US = 1000
#: How long after a call's end a callback with a single timestamp may report it, microseconds. Such callbacks do not
#: retry.
TOLD_AFTER_US: Final = 900_000_000
#: The largest difference between the clocks of LiteLLM and of the callback, microseconds.
_CLOCKS_US = 2_000_000
#: Kind of the customer id of LiteLLM's `lago` callback, whose ids are random.
_BY_LAGO = "subscription"

#: The verdicts on a copy: - missing: it was never counted. Send it. - known: it was billed at this cost. Do nothing. -
#: priced: it was counted without a price and this copy has one, or it was lost before it was billed. Send it. -
#: other_cost: it was billed at another cost. Report it. - unclear: the log cannot show whether it was counted.
MISSING, KNOWN, PRICED, OTHER_COST, UNCLEAR = "missing", "known", "priced", "other_cost", "unclear"


class LoggedDetails(NamedTuple):
    """What a row of the usage log knows of a call besides its ids; the names are those of `schemas.normalised_call.Usage`.

    Fields:
        end_us: microseconds since 1970 UTC; 0 = not known.
    """

    provider: str = ""
    call_type: str = ""
    tokens_input: int = 0
    tokens_output: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    end_us: int = 0
    user_id: str = ""
    team_id: str = ""
    organization_id: str = ""
    key_hash: str = ""
    key_alias: str = ""
    power_level: str = ""
    cache_write_tokens: int = 0
    images: int = 0
    seconds: Decimal = ZERO
    byok: bool = False


class LoggedCall(NamedTuple):
    """A row of the usage log.

    Fields:
        billed: whether the call is or was in a part, so that its cost is billed or will be.
        start_us: microseconds since 1970 UTC.
        details: None = they were not read.
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
    details: LoggedDetails | None = None


class CopyVerdict(NamedTuple):
    """The verdict on a copy, and the row that decided it; None = there is none."""

    word: str
    row: LoggedCall | None = None


def verdict(copy: Usage, rows: Iterable[LoggedCall], policy: MeterPolicy) -> CopyVerdict:
    """Return the verdict on `copy`; `rows` are all rows that may be the same call."""
    same: list[LoggedCall] = []
    unclear: LoggedCall | None = None
    for row in rows:
        answer = same_call(copy, row)
        if answer:
            same.append(row)
        elif answer is None:
            unclear = row
    if copy.cost and copy.note.endswith(SEALED) and not any(row.billed for row in same):
        # The polls of an encrypted response have different ids, so the log cannot show whether another poll was billed.
        # A copy without a cost, as LiteLLM writes them with a database, adds nothing in any case.
        return CopyVerdict(UNCLEAR, unclear)
    if not same:
        return CopyVerdict(MISSING) if unclear is None else CopyVerdict(UNCLEAR, unclear)
    billed = [row for row in same if row.billed]
    if billed:
        if not copy.cost or any(_same_cost(copy, row) for row in billed):
            return CopyVerdict(KNOWN, billed[0])
        return CopyVerdict(OTHER_COST, billed[0])
    if of_a_job(copy):  # a job id is unique only within a customer
        same = [row for row in same if row.customer_id == copy.customer_id]
        if not same:
            return CopyVerdict(MISSING)
    if any(row.details is not None and row.details.byok for row in same):
        copy = msgspec.structs.replace(copy, byok=True)  # it is sent so, see connectors/operations/pricing.py
    decision = decide(copy, policy)
    lost = [row for row in same if row.decision in {LOST, REJECTED}]
    if lost and decision in {*BILLED, METERED}:
        return CopyVerdict(PRICED, lost[0])
    if all(row.decision in PRICEABLE for row in same) and decision in BILLED:
        return CopyVerdict(PRICED, same[0])
    return CopyVerdict(KNOWN, same[0])


def same_call(copy: Usage, row: LoggedCall) -> bool | None:
    """Return whether `row` is the call of `copy`; None = unknown.

    Two calls can share a call id, which clients choose, and a request id, which providers repeat. Both ids and a start
    in whole milliseconds are a row of LiteLLM's database, where the request id is unique. Without a call id, an equal
    request id at another start is either the same call or a later one. Other callbacks (`openmeter`) and senders have
    one timestamp, usually the end, and one id, the request's or the call's. LiteLLM's `lago` callback has none of
    LiteLLM's ids.
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
        # An attempt that failed at once and the success after it are two calls with one call id.
        return row.status != "failure" or copy.status == "failure" or base == base_of(row.request_id)
    if not base or base != base_of(row.request_id):
        return None if _by_lago(copy, row) else False
    if of_a_job(copy) or names_a_job(row.request_id):
        return True
    if copy.call_id and row.call_id:
        coarse = not copy.start_us % _MILLISECOND_US or not row.start_us % _MILLISECOND_US
        return copy.call_id == row.call_id and (coarse or _without_start(copy) or _without_start(row))
    if near or told_after:
        return True
    return None if not copy.call_id else False


def has_start(call: Usage) -> bool:
    """Return whether the identity of the call is made of its start, so that each copy of it has the same start."""
    ids, start = ("litellm", call.call_id, call.request_id), str(call.start_us // 1000)
    return call.identity in (identity_of(*ids, call.status, start), identity_of(*ids, "", start))


def _without_start(call: Usage | LoggedCall) -> bool:
    """Return whether the sender of the call gave no start: then it has that of its end or receipt."""
    ids = ("litellm", call.call_id, call.request_id)
    return call.identity in (identity_of(*ids, call.status, ""), identity_of(*ids, "", ""))


def _same_cost(copy: Usage, row: LoggedCall) -> bool:
    """Return whether the log has the cost of the copy, with or without what its failed attempts have cost: they are in
    the log as calls of their own, or not at all.
    """
    return copy.cost - copy.carried - NOISE <= row.cost <= copy.cost + NOISE


def _by_lago(copy: Usage, row: LoggedCall) -> bool:
    """Return whether LiteLLM's `lago` callback may have reported the call. Then only its customer and cost are known."""
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
    """Return whether the copy reports a job: a poll, or LiteLLM's own row about it. The job is identified only by its
    id.
    """
    return bool(copy.job and copy.job == copy.identity) or copy.call_type in JOBS or names_a_job(copy.request_id)


def nameless(copy: Usage) -> bool:
    """Return whether the copy has neither a call id nor a request id of its own, so that no other route can find it
    again.
    """
    return copy.metered is None and not copy.call_id and not base_of(copy.request_id)
