"""What becomes of raw records that add nothing to a ledger: refused records and copies of counted calls."""

from decimal import Decimal
from hashlib import sha256
from typing import Protocol

import msgspec

from schemas.errors import Rejected
from schemas.ledger import Sum
from schemas.money import ZERO
from schemas.normalised_call import Usage
from schemas.reasons import TOO_LARGE
from schemas.record_sizes import short_key
from schemas.records import Rejection
from streams.core.metering.call_meaning import SEALED
from streams.core.metering.decisions import DUPLICATE, REJECTED
from streams.core.metering.notices import ASSUMED_REPEAT, COST_DIFFERS
from streams.core.metering.step_changes import Changes

#: Reasons for which only the length and the hash of a record are kept: it is no call, or no topic takes a copy.
_NOT_KEPT = frozenset({"malformed", TOO_LARGE})
_encode = msgspec.json.Encoder().encode


class Record(Protocol):
    """The part of a Kafka record that the fold reads."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def reject(changes: Changes, rejected: Sum, record: Record, refusal: Rejected, cost: Decimal = ZERO) -> None:
    """Count a refused record, and write it to the topic of rejected calls."""
    label = f"{REJECTED}:{refusal.reason}"
    changes.decisions[label] = changes.decisions.get(label, 0) + 1
    changes.rejected.append((short_key(record.key), _encode(_rejection_of(record, refusal))))
    rejected.calls += 1
    rejected.cost += cost


def repeat(changes: Changes, duplicate: Sum, record: Record, usage: Usage, *, differs_in_cost: bool) -> None:
    """Count a copy. A copy with another cost is also written to the topic of rejected calls."""
    cost = usage.cost
    changes.decisions[DUPLICATE] = changes.decisions.get(DUPLICATE, 0) + 1
    duplicate.calls += 1
    duplicate.cost += cost
    if differs_in_cost:
        detail = f"this copy costs {cost:f} USD; the call was counted at another cost"
        changes.rejected.append((record.key, _encode(_rejection_of(record, Rejected(COST_DIFFERS, detail)))))
        changes.noticed.doubt(COST_DIFFERS, cost)
    if cost and usage.job is usage.identity and usage.note == SEALED:
        changes.noticed.doubt(ASSUMED_REPEAT, cost)


def _rejection_of(record: Record, refusal: Rejected) -> Rejection:
    value = record.value or b""
    rejection = Rejection(
        refusal.reason, "meter", record.timestamp * 1000, refusal.detail, record.offset, length=len(value)
    )
    if refusal.reason in _NOT_KEPT:
        rejection.sha256 = sha256(value).hexdigest()
    else:
        rejection.call = msgspec.Raw(value)
    return rejection
