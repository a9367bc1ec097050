"""Says which rejected calls are requeued only if the operator accepts their reason by name, and which are never
requeued.
"""

from collections.abc import Collection

from streams.core.metering.notices import COST_DIFFERS
from streams.core.metering.plausible_cost import IMPLAUSIBLE_COST

#: Reasons that the meter ignores in a call if the operator has accepted them.
ACCEPTABLE = (IMPLAUSIBLE_COST,)
#: Reasons for copies of calls that are counted already. A copy has nothing to bill.
_COPIES = (COST_DIFFERS,)


def needs_word(reason: str, accepted: Collection[str]) -> bool:
    """Return whether a call that was rejected for `reason` waits for the operator to accept this reason."""
    return reason in ACCEPTABLE and reason not in accepted


def never_comes_back(reason: str) -> bool:
    """Return whether a call that was rejected for `reason` is counted already."""
    return reason in _COPIES
