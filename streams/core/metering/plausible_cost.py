"""Costs that no model has: a wrong price list, another currency, a wrong count. An operator decides about them."""

from schemas.money import EXACT
from schemas.policy import MeterPolicy
from schemas.usage import Usage
from streams.core.metering.call_kinds import JOB, MEDIA

#: The reason of the rejection, and the word in `accepted` that overrules it.
IMPLAUSIBLE_COST = "implausible_cost"


def implausible(usage: Usage, policy: MeterPolicy) -> bool:
    """Whether the call costs more than any model asks for, and no operator has accepted the cost.

    A job can stand for thousands of calls, so only its price per token counts where it reports tokens. Media are not
    priced by tokens.
    """
    cost, tokens = usage.cost, usage.total_tokens
    if IMPLAUSIBLE_COST in usage.accepted:
        return False
    if tokens and usage.kind != MEDIA and cost > EXACT.multiply(policy.max_usd_per_token, tokens):
        return True
    return cost > policy.max_usd_per_call and not (usage.kind == JOB and tokens)
