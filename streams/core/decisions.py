"""One decision code a call, and whether it is billed."""

from schemas.policy import MeterPolicy
from schemas.usage import Usage

BILLABLE = "billable"
FAILED_WITH_COST = "failed_with_cost"
FAILED_CALL = "failed_call"
ZERO_COST = "zero_cost"
UNPRICED = "unpriced"
CACHE_HIT = "cache_hit"
BYOK = "byok"
METERED = "metered"
DUPLICATE = "duplicate"
REJECTED = "rejected"

DECISIONS = (
    BILLABLE,
    FAILED_WITH_COST,
    METERED,
    FAILED_CALL,
    ZERO_COST,
    UNPRICED,
    CACHE_HIT,
    BYOK,
    DUPLICATE,
    REJECTED,
)
#: Calls that are folded; what is `METERED` is billed as well, each by itself.
BILLED = frozenset({BILLABLE, FAILED_WITH_COST})


def decide(usage: Usage, policy: MeterPolicy) -> str:
    """The decision about a call that is no duplicate and not rejected.

    A failed call with a cost is billed: a stream that was cut upstream cost money. A call with
    tokens and no cost is `unpriced`: not billed at 0, but an alert, since LiteLLM has no price.
    Usage that others measured has no cost here, and is asked for late: calls that have one pay nothing for it.
    """
    if usage.status == "failure":
        return FAILED_WITH_COST if usage.cost else FAILED_CALL
    if usage.cache_hit:
        return BILLABLE if policy.bill_cache_hits else CACHE_HIT
    if usage.byok and not policy.bill_byok:
        return BYOK
    if usage.cost:
        return BILLABLE
    if usage.metered is not None:
        return METERED
    return UNPRICED if usage.total_tokens else ZERO_COST
