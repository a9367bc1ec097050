"""Open windows that are sealed before their time, because there are too many of them.

A client can choose what a window is grouped by: a model behind a wildcard route, a field of `WINDOW_GROUP_BY`. So there
can be as many open windows as calls. An early part is a part like any other: a later call begins the next one.
"""

from heapq import nsmallest

from schemas.ledger import Window
from schemas.policy import MeterPolicy
from streams.core.metering.ledger_state import LedgerState

#: Windows are sealed down to this share of the bound, so that not every punctuation of a flood seals a few.
_LEFT = 0.8


def beyond_bound(ledger: LedgerState, now_us: int, policy: MeterPolicy) -> list[Window]:
    """The windows to seal now where more than `policy.max_open` are open: those whose last call is longest ago.

    Windows of frequent calls stay, and become one event as before. Windows with a call after `now_us` (a fast clock)
    stay too, because Lago must get no event of the future.
    """
    too_many = len(ledger.open) - int(policy.max_open * _LEFT)
    if len(ledger.open) <= policy.max_open:
        return []
    oldest = nsmallest(too_many, ((touched, first) for first, (_, touched) in ledger.open.items()))
    windows = (ledger.windows[first] for _, first in oldest)
    return [window for window in windows if window.max_end_us <= now_us]
