"""Costs that no model has: a wrong price list, another currency, a count of millions. They wait for an operator's word."""

from schemas.money import EXACT
from schemas.policy import MeterPolicy
from schemas.usage import Usage
from streams.core.metering.call_kinds import JOB, MEDIA

#: Reason of the rejection, and the word that overrules it.
IMPLAUSIBLE_COST = "implausible_cost"


def implausible(usage: Usage, policy: MeterPolicy) -> bool:
    """Whether the call costs more than any model asks for; an operator who accepted it is believed.

    A job is thousands of calls, so where it tells its tokens only their price is judged; media are not priced by tokens.
    """
    cost, tokens = usage.cost, usage.total_tokens
    if IMPLAUSIBLE_COST in usage.accepted:
        return False
    if tokens and usage.kind != MEDIA and cost > EXACT.multiply(policy.max_usd_per_token, tokens):
        return True
    return cost > policy.max_usd_per_call and not (usage.kind == JOB and tokens)
