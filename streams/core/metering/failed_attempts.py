"""Bills the cost of a failed attempt once, although LiteLLM may report it twice; pure.

If a stream is cut and another deployment continues it, LiteLLM 1.110 reports the tokens and the cost of the cut attempt
with the attempt, and adds them to those of the success (`cost_breakdown.additional_costs`). The same holds for the
answered rounds of an attempt that failed later. Both have one call id.

Source: `_add_continued_partial_spend` and `_add_failed_attempts_spend` in litellm/litellm_core_utils/litellm_logging.py.
"""

import msgspec

from schemas.ledger import Attempts
from schemas.money import ZERO, add
from schemas.usage import Usage
from streams.core.metering.decisions import FAILED_WITH_COST
from streams.core.metering.identity import identity_of

_NONE = Attempts()
_COUNTS = ("tokens_input", "tokens_output", "total_tokens", "cached_tokens", "reasoning_tokens")


def mark_of(usage: Usage) -> bytes:
    """Return 16 bytes that are equal for all attempts of one call; `b""` if the call has no call id."""
    return identity_of("attempts", usage.customer_id, usage.call_id) if usage.call_id else b""


def is_carried(usage: Usage, decision: str, known: Attempts | None) -> bool:
    """Return whether the call is a failed attempt whose cost is billed with the success after it.

    An attempt that ended later belongs to another call: a client may use a call id again.
    """
    return decision == FAILED_WITH_COST and known is not None and usage.end_us <= known.until_us


def without_attempts(usage: Usage, known: Attempts | None) -> None:
    """Remove from a success what its failed attempts were billed for. What was not billed stays in it."""
    if known is None or not (taken := min(usage.carried, known.cost)):
        return
    usage.cost = add(usage.cost, -taken)
    for name in _COUNTS:
        setattr(usage, name, max(0, getattr(usage, name) - getattr(known, name)))
    note = f"{taken.normalize():f} USD of failed attempts is billed with them"
    usage.note = f"{note}; {usage.note}" if usage.note else note


def after(usage: Usage, decision: str, known: Attempts | None) -> Attempts | None:
    """Return what is remembered of the call's attempts after this one was billed; None = nothing changes.

    A success takes all attempts before it: LiteLLM states their sum only.
    """
    before = known or _NONE
    if decision == FAILED_WITH_COST:
        counts = {name: getattr(before, name) + getattr(usage, name) for name in _COUNTS}
        return msgspec.structs.replace(before, cost=add(before.cost, usage.cost), **counts)
    return Attempts(ZERO, until_us=max(before.until_us, usage.end_us)) if usage.carried else None
