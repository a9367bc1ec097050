"""Selects open windows to seal early, because there are too many of them.

A client can choose values that define a window: a model behind a wildcard route, or a field of `WINDOW_GROUP_BY`. So
there can be as many open windows as calls. An early part is a normal part; a later call begins the next part.
"""

from heapq import nsmallest

from schemas.ledger import Window
from schemas.policy import MeterPolicy
from streams.core.metering.ledger_state import LedgerState

#: Windows are sealed down to this fraction of the bound, so that a flood does not cause a few seals at every
#: punctuation.
_LEFT = 0.8


def beyond_bound(ledger: LedgerState, now_us: int, policy: MeterPolicy) -> list[Window]:
    """Return the windows to seal now if more than `policy.max_open` are open: those with the oldest last call.

    Windows of frequent calls stay, and still become one event. Windows with a call after `now_us` (from a fast clock)
    stay, too, because Lago must not get an event with a future timestamp.
    """
    too_many = len(ledger.open) - int(policy.max_open * _LEFT)
    if len(ledger.open) <= policy.max_open:
        return []
    oldest = nsmallest(too_many, ((touched, first) for first, (_, touched) in ledger.open.items()))
    windows = (ledger.windows[first] for _, first in oldest)
    return [window for window in windows if window.max_end_us <= now_us]
