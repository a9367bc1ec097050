"""Bills the cost of a failed attempt once, although LiteLLM may report it twice; pure.

If a stream is cut and another deployment continues it, LiteLLM 1.110 reports the tokens and the cost of the cut attempt
with the attempt, and adds them to those of the success (`cost_breakdown.additional_costs`). The same holds for the
answered rounds of an attempt that failed later. Both have one call id.

Source: `_add_continued_partial_spend` and `_add_failed_attempts_spend` in litellm/litellm_core_utils/litellm_logging.py.
"""

from decimal import Decimal
from typing import Final

import msgspec

from schemas.ledger import Attempts, FailedAttempt
from schemas.moments import HOUR_US
from schemas.money import ZERO, add
from schemas.normalised_call import TOKENS, Usage, token_counts
from streams.core.metering.decisions import FAILED_WITH_COST
from streams.core.metering.identity import identity_of
from streams.core.metering.matching import NOISE

#: The most attempts of a call that are remembered. A client may use a call id again and again.
MOST_ATTEMPTS: Final = 16
#: The longest time between the ends of two attempts of one call, microseconds. Calls with a call id that end later are
#: others, which a client has given the same id.
_SAME_CALL_US: Final = HOUR_US
_NONE: Final = Attempts()


def mark_of(usage: Usage) -> bytes:
    """Return 16 bytes that are equal for all attempts of one call; `b""` if the call has no call id."""
    return identity_of("attempts", usage.customer_id, usage.call_id) if usage.call_id else b""


def is_carried(usage: Usage, decision: str, known: Attempts | None) -> bool:
    """Return whether the call is a failed attempt whose cost was billed with the success after it.

    An attempt that ended later belongs to another call: a client may use a call id again. Neither is an attempt carried
    whose own cost is more than the success has carried and was not matched with other attempts.
    """
    return (
        decision == FAILED_WITH_COST
        and known is not None
        and usage.end_us <= known.until_us
        and own_cost(usage) <= known.carried + NOISE
    )


def own_cost(usage: Usage) -> Decimal:
    """Return the cost of a call without that of the earlier attempts that it carries, dollars.

    An attempt may arrive after the success that carries it, but also after the earlier attempts that it carries itself.
    These were matched then, and only its own part is left of what the success has carried.
    """
    return add(usage.cost, -usage.carried)


def after_carried(usage: Usage, known: Attempts | None) -> Attempts:
    """Return what is remembered after an attempt that `is_carried`. What it carries itself is billed with it, too: it was
    matched before, or is matched when its report arrives.
    """
    before = known or _NONE
    return msgspec.structs.replace(before, carried=max(ZERO, add(before.carried, -own_cost(usage))))


def without_attempts(usage: Usage, decision: str, known: Attempts | None) -> Attempts:
    """Remove from a call what its failed attempts were billed for. Return what is remembered after it.

    LiteLLM states only the sum of what a call carries. If that is the cost of one attempt, it is this one. Otherwise the
    latest attempts are taken that fit into it. Attempts that the call does not carry stay billed beside it.
    """
    before = known or _NONE
    whole = FailedAttempt(usage.end_us, usage.cost, *token_counts(usage))
    left, kept = usage.carried, []
    exact = [
        attempt for attempt in before.billed if attempt.end_us <= usage.end_us and abs(attempt.cost - left) <= NOISE
    ]
    for attempt in before.billed:
        is_another = bool(exact) and attempt is not exact[0]
        if is_another or attempt.cost > left + NOISE or attempt.end_us > usage.end_us:
            kept.append(attempt)
            continue
        taken = min(attempt.cost, left)
        left, usage.cost = add(left, -taken), add(usage.cost, -taken)
        for name in TOKENS:
            setattr(usage, name, max(0, getattr(usage, name) - getattr(attempt, name)))
    if usage.cost != whole.cost:
        note = f"{add(whole.cost, -usage.cost).normalize():f} USD of failed attempts is billed with them"
        usage.note = f"{note}; {usage.note}" if usage.note else note
    if decision == FAILED_WITH_COST:
        kept = sorted([whole, *kept], key=lambda attempt: -attempt.end_us)[:MOST_ATTEMPTS]
    if left > NOISE:
        # What a taken attempt carries itself may not be reported yet either.
        waits = before.carried if usage.end_us - before.until_us <= _SAME_CALL_US else ZERO
        return Attempts(tuple(kept), add(waits, left), max(usage.end_us, before.until_us if waits else 0))
    return msgspec.structs.replace(before, billed=tuple(kept))
