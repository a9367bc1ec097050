"""Computes for each customer how the amounts would change if another version of the rate card priced the calls of a
period.
"""

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from connectors.operations.logged_usage import Logged, logged_calls
from connectors.postgres.pool import Database
from schemas.customers import OrgRecord, Period
from schemas.moments import parse_us
from schemas.money import EXACT, ZERO, add
from schemas.policy import MeterPolicy
from schemas.rates import RateCard
from streams.core.metering.decisions import BILLABLE, BILLED, decide
from streams.core.metering.rated_calls import rated
from streams.core.metering.spend_log_ids import is_cache_hit
from streams.core.pricing.cards import Price, Rates

#: Which calls are billed without a cost depends on no policy, except for answers from a cache: one that is billed was.
_POLICY = MeterPolicy(bill_cache_hits=True)
_ORGS = "SELECT org_id, periods FROM organisations"


class _Stored(msgspec.Struct):
    """A period as it is stored in `organisations`."""

    external_id: str
    started_at: str
    terminated_at: str | None = None
    plan_code: str = ""


_stored = msgspec.json.Decoder(list[_Stored]).decode


@dataclass(slots=True)
class Changed:
    """Calls of one customer and org: their cost, their billed amount, and the amount by the tested version, in dollars."""

    customer: str
    org_id: str
    calls: int = 0
    cost: Decimal = ZERO
    before: Decimal = ZERO
    after: Decimal = ZERO


async def tried_on(database: Database, card: RateCard, since_us: int, until_us: int, unit: Decimal) -> list[Changed]:
    """Sum up the calls that ended in `[since_us, until_us)`, by customer and org, the largest change first.

    The version is applied to all calls, regardless of its `effective_from`. Calls that neither price bills are left
    out.

    Args:
        unit: the unit of `COST_DECIMALS`, dollars. Prices are rounded to a multiple of it, as the meter does.

    Raises:
        Unavailable: Postgres does not answer.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(_ORGS)
    orgs = {row["org_id"]: OrgRecord(row["org_id"], periods=_periods(row["periods"])) for row in rows}
    rates = Rates([msgspec.structs.replace(card, effective_from=0)], orgs, unit)
    sums: dict[tuple[str, str], Changed] = {}
    async for call in logged_calls(database, since_us, until_us):
        usage, after = call.usage, ZERO
        price = price_by(rates, call)
        if price is not None:
            factor = rates.factor(card, call.org_id, call.subscription, usage.end_us)
            after = EXACT.multiply(price.usd, factor)
        elif call.decision not in BILLED:
            continue
        one = sums.setdefault((usage.customer_id, call.org_id), Changed(usage.customer_id, call.org_id))
        one.calls += 1
        one.cost, one.before, one.after = add(one.cost, usage.cost), add(one.before, call.billed), add(one.after, after)
    return sorted(sums.values(), key=lambda one: (-abs(one.after - one.before), one.customer, one.org_id))


def price_by(rates: Rates, call: Logged) -> Price | None:
    """Return the price that the meter would have given the call by the tested version; None = it would not have billed
    it.

    A call without a cost may be `billable` only because the version in force priced it. Another version decides anew.
    """
    usage, decision = call.usage, call.decision
    if decision == BILLABLE and not usage.cost:
        usage.cache_hit = usage.cache_hit or is_cache_hit(usage.request_id)  # rows of before do not have it
        usage.media = bool(usage.images or usage.seconds)
        decision = decide(usage, _POLICY)
    return rated(usage, decision, rates)


def _periods(text: str) -> tuple[Period, ...]:
    return tuple(
        Period(
            one.external_id,
            parse_us(one.started_at),
            None if one.terminated_at is None else parse_us(one.terminated_at),
            one.plan_code,
        )
        for one in _stored(text)
    )
