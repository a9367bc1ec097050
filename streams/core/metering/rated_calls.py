"""Which calls a rate card prices: those that are billed, and those that are not only because LiteLLM has no price."""

from schemas.usage import Usage
from streams.core.metering.call_kinds import INFERENCE, MEDIA
from streams.core.metering.decisions import BILLED, UNPRICED, ZERO_COST
from streams.core.pricing.cards import Price, Rates


def rated(usage: Usage, decision: str, rates: Rates) -> Price | None:
    """The price of a call; None: no version is in force at its end, or the call is not billed.

    A call without a cost is billed where its entry prices what was counted of it. Calls that are not billed by a policy
    or because they failed stay so, and so do calls that only manage something. A report of a job has no price without a cost:
    an earlier report may have fewer tokens, and a read of an answer repeats those that its creation was billed for.
    """
    if decision in BILLED:
        return rates.price(usage)
    if decision in (UNPRICED, ZERO_COST) and usage.kind == INFERENCE:
        return rates.price_of_use(usage)
    if decision == UNPRICED and usage.kind == MEDIA and not usage.job:
        return rates.price_of_use(usage)
    return None
