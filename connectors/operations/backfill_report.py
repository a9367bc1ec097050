"""What a backfill found: counts, money and the first few names of each kind."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from connectors.operations.replay import Amount
from schemas.moments import HOUR_US, to_iso
from schemas.money import ZERO, add, plain
from schemas.usage import Usage
from streams.core.metering.matching import LoggedCall

#: Names that are kept of each kind; counts and sums are over all.
NAMED: Final = 20


@dataclass(slots=True)
class Hour:
    """Calls that started within one hour: those that were counted, and those that were not.

    Fields:
        priced: counted without the price that they have now.
        first_us, last_us: starts of the first and the last missing call; 0 where none is missing.
        names: ids of the first missing ones.
    """

    known: int = 0
    missing: Amount = field(default_factory=Amount)
    priced: Amount = field(default_factory=Amount)
    first_us: int = 0
    last_us: int = 0
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Other:
    """A call that was billed at another cost than its copy has; dollars."""

    call: str
    customer: str
    billed: Decimal
    told: Decimal


@dataclass(slots=True)
class BackfillReport:
    """What became of the elements.

    Fields:
        read: elements there were.
        known: counted already, or twice among the elements.
        missing: sent, or in a dry run to be sent: calls that never arrived, by LiteLLM customer id.
        priced: the same of calls that were counted without a price, and have one now.
        hours: all these by the hour the calls started in, ISO 8601 UTC.
        others, other_calls, other_usd: billed at another cost: the first few, how many, by how many dollars more the
            copies have.
        unpriced: calls that have no price here and none in the copy, by model.
        refused: elements by reason; `where` the first few of them.
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
        """Nothing is left that somebody has to look at."""
        return not self.refused and not self.other_calls

    def hour_of(self, call: Usage) -> Hour:
        """The hour that a call started in."""
        return self.hours.setdefault(to_iso(call.start_us - call.start_us % HOUR_US)[:16] + "Z", Hour())

    def refuse(self, place: str, reason: str) -> None:
        """An element that is not sent."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        if len(self.where) < NAMED:
            self.where.append(f"{place}: {reason}")

    def arrive_late(self, call: Usage) -> None:
        """A call that never arrived."""
        self.missing.setdefault(call.customer_id, Amount()).count(call.total_tokens, call.cost)
        hour = self.hour_of(call)
        hour.missing.count(call.total_tokens, call.cost)
        hour.first_us = min(hour.first_us or call.start_us, call.start_us)
        hour.last_us = max(hour.last_us, call.start_us)
        if len(hour.names) < NAMED:
            hour.names.append(name_of(call))

    def find_a_price(self, call: Usage, row: LoggedCall) -> None:
        """A call that was counted without one."""
        self.priced.setdefault(row.customer_id, Amount()).count(call.total_tokens, call.cost)
        self.hour_of(call).priced.count(call.total_tokens, call.cost)

    def differ(self, call: Usage, row: LoggedCall) -> None:
        """A call that was billed at another cost."""
        self.other_calls += 1
        self.other_usd = add(self.other_usd, call.cost - row.cost)
        if len(self.others) < NAMED:
            self.others.append(Other(name_of(call), row.customer_id, row.cost, call.cost))


def name_of(call: Usage) -> str:
    """What a call is called in front of people."""
    return call.request_id or call.call_id or call.identity.hex()


def total(amounts: dict[str, Amount]) -> Amount:
    """All customers together."""
    whole = Amount()
    for one in amounts.values():
        whole.calls += one.calls
        whole.tokens += one.tokens
        whole.usd = add(whole.usd, one.usd)
    return whole


def told(done: BackfillReport) -> dict[str, Any]:
    """The same as JSON."""
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
                {"call": one.call, "customer": one.customer, "billed_usd": plain(one.billed), "usd": plain(one.told)}
                for one in done.others
            ],
        },
        "unpriced": dict(sorted(done.unpriced.items())),
        "refused": done.refused,
        "where": done.where,
        "customers": {
            name: {"calls": one.calls, "tokens": one.tokens, "usd": plain(one.usd)}
            for name, one in sorted(done.missing.items())
        },
    }


def no_price_yet(done: BackfillReport) -> str:
    """What to do about calls that nobody has a price for."""
    models = ", ".join(f"{model or 'no model'} ({calls})" for model, calls in sorted(done.unpriced.items()))
    return (
        f"{sum(done.unpriced.values())} calls have no price, neither here nor there: {models}. Give LiteLLM the model's "
        "price for calls to come; bill these by `backfill --source csv` with request_id, litellm_call_id, startTime and "
        "spend."
    )
