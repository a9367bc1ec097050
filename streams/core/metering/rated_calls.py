"""Decides which calls a rate card prices: billed calls, and calls that are unbilled only because LiteLLM has no price."""

from schemas.normalised_call import Usage
from streams.core.metering.call_kinds import INFERENCE, MEDIA, UNKNOWN
from streams.core.metering.decisions import BILLED, UNPRICED, ZERO_COST
from streams.core.pricing.cards import Price, Rates


def rated(usage: Usage, decision: str, rates: Rates) -> Price | None:
    """Return the price of a call; None = no version applies at its end, or the call is not billed.

    A call without a cost is billed if its entry prices the counted units. Calls that are unbilled because of a policy
    or a failure stay unbilled, and so do management calls. A call of a type that this release does not know counts as
    inference, but its request alone is not billed, because it may read a job. A report of a job without a cost has no
    price, because an earlier report may have fewer tokens, and a read of an answer repeats the tokens that were billed
    with its creation.
    """
    if decision in BILLED:
        return rates.price(usage)
    if decision in (UNPRICED, ZERO_COST) and usage.kind == INFERENCE:
        return rates.price_of_use(usage)
    if decision == UNPRICED and usage.kind == MEDIA and not usage.job:
        return rates.price_of_use(usage)
    if decision == UNPRICED and usage.kind == UNKNOWN:
        return rates.price_of_use(usage, read_again=True)
    return None
