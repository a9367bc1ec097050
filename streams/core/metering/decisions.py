"""The decision code of each call. It says whether the call is billed."""

from schemas.normalised_call import Usage
from schemas.policy import MeterPolicy
from streams.core.metering.call_kinds import MANAGEMENT, MEDIA

BILLABLE = "billable"
FAILED_WITH_COST = "failed_with_cost"
FAILED_CALL = "failed_call"
ZERO_COST = "zero_cost"
UNPRICED = "unpriced"
CACHE_HIT = "cache_hit"
BYOK = "byok"
OWN_SUBSCRIPTION = "own_subscription"
SILENT_EXPERIMENT = "silent_experiment"
#: A failed attempt whose cost was billed with the success after it (docs/adr/0060).
CARRIED = "carried"
METERED = "metered"
DUPLICATE = "duplicate"
#: In the usage log: a lost ledger had counted the call, and the rebuilt one has rejected it (docs/adr/0043).
REJECTED = "rejected"
#: Only in the usage log: the call was counted, and its topics were lost before an event billed it (docs/adr/0053).
LOST = "lost"

DECISIONS = (
    BILLABLE,
    FAILED_WITH_COST,
    METERED,
    FAILED_CALL,
    ZERO_COST,
    UNPRICED,
    CACHE_HIT,
    BYOK,
    OWN_SUBSCRIPTION,
    SILENT_EXPERIMENT,
    CARRIED,
    DUPLICATE,
    REJECTED,
)
#: Decisions of calls that are folded. `METERED` usage is billed, too, each event separately.
BILLED = frozenset({BILLABLE, FAILED_WITH_COST})
#: Decisions of calls whose cost is billed: by the call itself, or by the success after it.
COST_IS_BILLED = BILLED | {CARRIED}
#: Decisions of calls that are counted and not billed.
UNBILLED = frozenset(DECISIONS) - BILLED - {METERED, DUPLICATE, REJECTED}
#: Unbilled decisions that a price changes. Of the others, another policy or LiteLLM decides, whatever a copy costs.
PRICEABLE = frozenset({UNPRICED, ZERO_COST, FAILED_CALL})


def decide(usage: Usage, policy: MeterPolicy) -> str:
    """Decide about a call that is neither a duplicate nor rejected.

    Policies have precedence over the cost, also for failed calls: a caller who paid the provider is not billed for an
    interrupted stream. A failed call with a cost is billed, because the provider charges it. Media calls, and calls
    with tokens, are `unpriced` without a cost. They raise an alert, because LiteLLM has no price. Usage that other
    services measured has no cost here.
    """
    failed = usage.status == "failure"
    if failed and not usage.cost:
        return FAILED_CALL
    if usage.cache_hit and not policy.bill_cache_hits:
        return CACHE_HIT
    if usage.byok and not policy.bill_byok:
        return BYOK
    if usage.own_subscription and not policy.bill_own_subscriptions:
        return OWN_SUBSCRIPTION
    if usage.silent_experiment and not policy.bill_silent_experiments:
        return SILENT_EXPERIMENT
    if usage.cost:
        return FAILED_WITH_COST if failed else BILLABLE
    if usage.metered is not None:
        return METERED
    if usage.cache_hit:
        return BILLABLE
    return _without_cost(usage)


def _without_cost(usage: Usage) -> str:
    """Decide about a call without a cost: the price is missing (`unpriced`), or nothing is to be paid (`zero_cost`)."""
    if usage.kind == MEDIA:
        return UNPRICED
    if usage.kind == MANAGEMENT:
        return ZERO_COST
    return UNPRICED if usage.total_tokens or usage.media else ZERO_COST
