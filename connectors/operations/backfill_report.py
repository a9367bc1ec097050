"""The report of a backfill: counts, money, and the ids of the first few calls of each kind."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from connectors.operations.replay import Amount, by_customer, total
from schemas.moments import HOUR_US, to_iso
from schemas.money import ZERO, add, plain
from schemas.normalised_call import Usage
from schemas.plurals import numbered
from streams.core.metering.matching import LoggedCall

#: Number of ids that are kept of each kind. Counts and sums cover all calls.
NAMED: Final = 20


@dataclass(slots=True)
class Hour:
    """Calls that started within one hour.

    Fields:
        known: number of calls that are counted already.
        missing: number of calls that are not counted yet.
        priced: number of calls that were counted without a price and have one now.
        first_us, last_us: start of the first and of the last missing call, microseconds since 1970 UTC; 0 = none.
        names: ids of the first missing calls.
    """

    known: int = 0
    missing: Amount = field(default_factory=Amount)
    priced: Amount = field(default_factory=Amount)
    first_us: int = 0
    last_us: int = 0
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Other:
    """A billed call that was counted at another cost than its copy has: `counted` and `claimed`, dollars. A rate card may
    bill another amount than the counted cost.
    """

    call: str
    customer: str
    counted: Decimal
    claimed: Decimal


@dataclass(slots=True)
class BackfillReport:
    """The outcomes of the elements. An element is a call if it can be read.

    Fields:
        read: number of elements.
        known: number of calls that were counted already, or that are twice among the elements.
        missing: calls that never arrived and are sent now (in a dry run: would be sent), by LiteLLM customer id.
        priced: calls that were counted without a price and are sent with one now, by LiteLLM customer id.
        hours: all these calls by the hour in which they started, ISO 8601 UTC.
        others, other_calls, other_usd: billed calls that were counted at another cost: the first few, their number, and by how
            many dollars the copies cost more.
        unpriced: number of calls without a price in the log and in the copy, by model.
        refused: number of elements that are not sent, by reason; `where` has the first few.
    """

    read: int = 0
    known: int = 0
    missing: dict[str, Amount] = field(default_factory=dict)
    priced: dict[str, Amount] = field(default_factory=dict)
    hours: dict[str, Hour] = field(default_factory=dict)
    others: list[Other] = field(default_factory=list)
    other_calls: int = 0
    other_usd: Decimal = ZERO
    unpriced: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    where: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is left for a person to look at."""
        return not self.refused and not self.other_calls

    def hour_of(self, call: Usage) -> Hour:
        """Return the entry of the hour in which a call started."""
        return self.hours.setdefault(to_iso(call.start_us - call.start_us % HOUR_US)[:16] + "Z", Hour())

    def refuse(self, place: str, reason: str) -> None:
        """Count an element that is not sent."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        if len(self.where) < NAMED:
            self.where.append(f"{place}: {reason}")

    def arrive_late(self, call: Usage) -> None:
        """Count a call that never arrived."""
        self.missing.setdefault(call.customer_id, Amount()).count(call.total_tokens, call.cost)
        hour = self.hour_of(call)
        hour.missing.count(call.total_tokens, call.cost)
        hour.first_us = min(hour.first_us or call.start_us, call.start_us)
        hour.last_us = max(hour.last_us, call.start_us)
        if len(hour.names) < NAMED:
            hour.names.append(name_of(call))

    def find_a_price(self, call: Usage, row: LoggedCall) -> None:
        """Count a call that was counted without a price and has one now."""
        self.priced.setdefault(row.customer_id, Amount()).count(call.total_tokens, call.cost)
        self.hour_of(call).priced.count(call.total_tokens, call.cost)

    def differ(self, call: Usage, row: LoggedCall) -> None:
        """Count a billed call that was counted at another cost."""
        self.other_calls += 1
        self.other_usd = add(self.other_usd, call.cost - row.cost)
        if len(self.others) < NAMED:
            self.others.append(Other(name_of(call), row.customer_id, row.cost, call.cost))


def name_of(call: Usage) -> str:
    """Return the id by which a call is shown to people."""
    return call.request_id or call.call_id or call.identity.hex()


def report_as_object(done: BackfillReport) -> dict[str, Any]:
    """Return the report as an object for JSON."""
    missing, priced = total(done.missing), total(done.priced)
    return {
        "read": done.read,
        "known": done.known,
        "missing": missing.calls,
        "usd": plain(missing.usd),
        "priced": priced.calls,
        "priced_usd": plain(priced.usd),
        "other_cost": {
            "calls": done.other_calls,
            "usd": plain(done.other_usd),
            "first": [
                {
                    "call": other.call,
                    "customer": other.customer,
                    "counted_usd": plain(other.counted),
                    "usd": plain(other.claimed),
                }
                for other in done.others
            ],
        },
        "unpriced": dict(sorted(done.unpriced.items())),
        "refused": done.refused,
        "where": done.where,
        "customers": by_customer(done.missing),
    }


def no_price_yet(done: BackfillReport) -> str:
    """Return a sentence about calls without a price, with the next step."""
    models = ", ".join(f"{model or 'no model'} ({calls})" for model, calls in sorted(done.unpriced.items()))
    return (
        f"{numbered(sum(done.unpriced.values()), 'call has', 'calls have')} no price, neither here nor there: {models}. Give LiteLLM the model's "
        "price for calls to come; bill these by `backfill --source csv` with request_id, litellm_call_id, startTime and "
        "spend."
    )
