"""Finds the payer's factor: of the org, or of the plan of the billed subscription. Pure."""

from decimal import Decimal

from schemas.customers import OrgRecord, Period
from schemas.rates import RateCard

ONE = Decimal(1)


def payer_factor(card: RateCard, org_id: str, plan: str) -> Decimal:
    """Return the factor for the sum of a window's prices: the org's own factor, otherwise its plan's, otherwise 1.

    Only one of them applies. It has at most 4 decimals, so the amount stays exact within Lago's 15 decimals of a cent.
    """
    factors = card.factors
    if factors is None:
        return ONE
    own = factors.org.get(org_id)
    return factors.plan.get(plan, ONE) if own is None else own


def plan_at(org: OrgRecord | None, subscription: str, at_us: int) -> str:
    """Return the code of the subscription's plan at that moment; `""` = not known.

    A change of plan keeps the subscription's id and begins another period. Before all periods the first one is used,
    between two periods the next one, and after all of them the last one. Usage of such a time is billed in the same
    way.
    """
    if org is None:
        return ""
    periods = sorted((one for one in org.periods if one.external_id == subscription), key=_start)
    for period in periods:
        if period.terminated_at is None or at_us < period.terminated_at:
            return period.plan_code
    return periods[-1].plan_code if periods else ""


def _start(period: Period) -> int:
    return period.started_at
