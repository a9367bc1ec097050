"""Finds implausible costs, caused by a wrong price list, another currency, or a wrong count. An operator decides about
them.
"""

from decimal import Decimal

from schemas.money import EXACT, ZERO
from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from streams.core.metering.call_kinds import JOB, MEDIA

#: The reason of the rejection. An operator overrules it with the same text in `accepted`.
IMPLAUSIBLE_COST = "implausible_cost"


def implausible(usage: Usage, policy: MeterPolicy, billed: Decimal = ZERO) -> bool:
    """Return whether the call costs more than the price of any model allows, and no operator has accepted the cost.

    `billed`: the amount by a rate card, dollars. Only its size is checked, because a price per request has no bound per
    token. A job can represent thousands of calls, so only its price per token is checked if it reports tokens. Media
    are not priced by tokens.
    """
    cost, tokens = usage.cost, usage.total_tokens
    if IMPLAUSIBLE_COST in usage.accepted:
        return False
    if tokens and usage.kind != MEDIA and cost > EXACT.multiply(policy.max_usd_per_token, tokens):
        return True
    return max(cost, billed) > policy.max_usd_per_call and not (usage.kind == JOB and tokens)
