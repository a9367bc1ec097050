"""Which refused calls an operator has to accept by name before they come back, and which never do."""

from collections.abc import Collection

from streams.core.metering.notices import COST_DIFFERS
from streams.core.metering.plausible_cost import IMPLAUSIBLE_COST

#: Reasons that the meter overlooks in a call whose operator named them.
ACCEPTABLE = (IMPLAUSIBLE_COST,)
#: Copies of calls that are counted already: there is nothing to bill.
_COPIES = (COST_DIFFERS,)


def needs_word(reason: str, accepted: Collection[str]) -> bool:
    """Whether a call that was refused for `reason` waits for an operator to accept that."""
    return reason in ACCEPTABLE and reason not in accepted


def never_comes_back(reason: str) -> bool:
    """Whether a call that was kept aside for `reason` is counted already."""
    return reason in _COPIES
